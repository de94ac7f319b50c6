"""The baseline for Keras: what tutorials do."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from stages.training.batches import LabeledImages

LEARNING_RATE = 1e-3
PADDING = 4  # pixels


def pixels(examples: LabeledImages, size: int, batch_size: int) -> tf.data.Dataset:
    """Images cropped, mirrored and upsampled one by one: pixels (B, size, size, 3) float32 from 0 to 255, labels."""
    side = examples.images.shape[1]

    def prepare(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        padded = tf.pad(image, [[PADDING, PADDING], [PADDING, PADDING], [0, 0]], "REFLECT")
        image = tf.image.random_flip_left_right(tf.image.random_crop(padded, (side, side, 3)))
        return tf.image.resize(tf.cast(image, tf.float32), (size, size)), label

    images = tf.data.Dataset.from_tensor_slices((examples.images, examples.labels)).shuffle(10_000)
    return images.map(prepare, tf.data.AUTOTUNE).batch(batch_size).prefetch(tf.data.AUTOTUNE)


def train(classifier: Any, examples: LabeledImages, is_enough: Callable[[], bool]) -> None:
    """Train the classifier's network in float32 by Adam on images that tf.data upsamples, until it is enough."""
    upsampled = classifier.network.get_layer("upsample").output
    model = keras.Model(upsampled, classifier.network.output)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(LEARNING_RATE), loss, metrics=["accuracy"])

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            self.model.stop_training = is_enough()

    data = pixels(examples, upsampled.shape[1], classifier.settings.batch_size)
    model.fit(data, epochs=1_000_000, verbose=0, callbacks=[Stop()])


def synchronize() -> None:
    """Return when the device has done all it was given."""
    tf.test.experimental.sync_devices()
