"""The notebook way for Keras, and an optimizer step with nothing around it."""

from collections.abc import Callable
from typing import cast

from stages.common.settings import Compute
from stages.models.base import Classifier, Examples
from stages.models.keras_engine.model import KerasClassifier
from stages.models.keras_engine.session import keras, tf  # by way of the folder that chooses Keras' backend
from stages.training.batches import Batch
from stages.training.keras_engine.loop import compiled

LEARNING_RATE = 1e-3
PADDING = 4  # pixels


def pixels(examples: Examples, size: int, batch_size: int) -> tf.data.Dataset:
    """Pictures cropped, mirrored and upsampled one by one: pixels (B, size, size, 3) float32 from 0 to 255, labels."""
    side = examples.images.shape[1]

    def prepare(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        padded = tf.pad(image, [[PADDING, PADDING], [PADDING, PADDING], [0, 0]], "REFLECT")
        image = tf.image.random_flip_left_right(tf.image.random_crop(padded, (side, side, 3)))
        return tf.image.resize(tf.cast(image, tf.float32), (size, size)), label

    pictures = tf.data.Dataset.from_tensor_slices((examples.images, examples.labels)).shuffle(10_000)
    return pictures.map(prepare, tf.data.AUTOTUNE).batch(batch_size).prefetch(tf.data.AUTOTUNE)


def train_as_notebook(classifier: Classifier, examples: Examples, is_enough: Callable[[], bool]) -> int:
    """Train the classifier's network in float32 by Adam on pictures that tf.data upsamples, until it is enough.

    Returns how many numbers that network holds.
    """
    network = cast(KerasClassifier, classifier).network
    upsampled = network.get_layer("upsample").output
    model = keras.Model(upsampled, network.output)
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            self.model.stop_training = is_enough()

    data = pixels(examples, upsampled.shape[1], classifier.settings.batch_size)
    model.fit(data, epochs=1_000_000, verbose=0, callbacks=[Stop()])
    return model.count_params()


def model_step(classifier: Classifier, batch: Batch, compute: Compute) -> Callable[[float], object]:
    """Forward, backward and optimizer step on a batch that lies ready on the device, again and again.

    What comes back takes the share of all steps that are done, of which nothing depends here.
    """
    ours = cast(KerasClassifier, classifier)
    network = ours.network if ours.resolved["precision"] == "float32" else ours.build("mixed_bfloat16")
    model = compiled(network, ours.phases(1_000)[-1], getattr(ours.settings, "label_smoothing", 0.0))
    images, targets = tf.constant(batch.images), tf.one_hot(batch.labels, ours.num_classes)

    @tf.function
    def step(images: tf.Tensor, targets: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = model.loss(targets, model(images, training=True))
        model.optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    # As arguments: TensorFlow would compute ahead what follows from a constant.
    return lambda progress: step(images, targets)


def wait() -> None:
    """Return when the device has done all it was given."""
    tf.test.experimental.sync_devices()
