"""Training of the Keras classifiers by Keras' own fit: phases of steps, one progress bar per epoch."""

import math
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from ..batches import Batches
from ..classifier import Examples, Reporter
from ..errors import ClassifierError
from ..settings import Compute
from . import session

if TYPE_CHECKING:
    from .classifier import KerasClassifier, Phase

VALIDATION_BATCH = 256
REPORT_EVERY = 20  # optimizer steps between two reports


def segments(start: int, steps: int, epoch_length: int) -> Iterator[tuple[int, int, int]]:
    """Cut `steps` steps from step `start` on where epochs end: (epoch, first batch, batch after the last), from 0."""
    end = start + steps
    while start < end:
        epoch, first = divmod(start, epoch_length)
        stop = min(epoch_length, first + end - start)
        yield epoch, first, stop
        start += stop - first


def training_data(batches: Batches, num_classes: int, epoch: int, first: int, stop: int) -> tf.data.Dataset:
    """Batches `first` up to `stop` of an epoch, in their order."""
    return _dataset(lambda: islice(batches.epoch(epoch, first), stop - first), stop - first, batches, num_classes)


def validation_data(val: Examples, num_classes: int) -> tf.data.Dataset:
    """All examples in their order."""
    batches = Batches(val, VALIDATION_BATCH, seed=0)
    order = np.arange(len(val.labels))
    return _dataset(
        lambda: (batches.batch(0, index, order) for index in range(len(batches))), len(batches), batches, num_classes
    )


def _dataset(
    examples: Callable[[], Iterator[Examples]], length: int, batches: Batches, num_classes: int
) -> tf.data.Dataset:
    # A signature with an open batch size, because each new size would trace the training step again.
    signature = (
        tf.TensorSpec((None, *batches.examples.images.shape[1:]), tf.uint8),
        tf.TensorSpec((None, num_classes), tf.float32),
    )
    one_hot = np.eye(num_classes, dtype=np.float32)
    dataset = tf.data.Dataset.from_generator(
        lambda: ((images, one_hot[labels]) for images, labels in examples()), output_signature=signature
    )
    return dataset.apply(tf.data.experimental.assert_cardinality(length)).prefetch(2)


class Progress(keras.callbacks.Callback):
    """The progress bar and the reports. It lives through all calls of Keras' fit and counts steps and epochs itself."""

    def __init__(self, batches: Batches, epochs: int, classifier_name: str, reporter: Reporter) -> None:
        super().__init__()
        self.batches = batches
        self.epochs = epochs
        self.classifier_name = classifier_name
        self.reporter = reporter
        self.step = 0  # optimizer steps so far
        self.bar: tqdm | None = None
        self.epoch_sums = np.zeros(2)  # of loss and top1, over the examples of the epoch so far
        self.window_means = np.zeros(2)  # of loss and top1 since the last report
        self.window_size = 0  # examples

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self.bar is None:  # otherwise a phase goes on within an epoch
            watched = sys.stderr.isatty()
            self.bar = tqdm(
                total=len(self.batches),
                desc=f"Epoch {epoch + 1}/{self.epochs}",
                mininterval=0.2 if watched else 20,  # seconds; few lines in a log file
                dynamic_ncols=watched,
            )

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        assert self.bar is not None
        index = self.step % len(self.batches)
        batch_size = self.batches.batch_size
        self.window_size += min(batch_size, len(self.batches.examples.labels) - index * batch_size)
        self.window_means[:] = logs["loss"], logs["top1"]
        self.step += 1
        self.bar.set_postfix(
            {"loss": f"{logs['loss']:.3f}", "accuracy": f"{logs['top1']:.3f}"}, refresh=self.bar.n + 1 == self.bar.total
        )
        self.bar.update()
        if self.step % REPORT_EVERY == 0:
            loss, top1 = map(float, self.window_means)
            self._close_window()
            metrics = {"train_loss": loss, "train_top1": top1, "learning_rate": self._learning_rate()}
            self.reporter.on_step(self.step, metrics)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self._close_window()
        if "val_top1" not in logs:
            return  # only a phase ended here
        train_loss, train_top1 = self.epoch_sums / len(self.batches.examples.labels)
        metrics = {
            "train_loss": float(train_loss),
            "train_top1": float(train_top1),
            "val_loss": float(logs["val_nll"]),
            "val_top1": float(logs["val_top1"]),
            "learning_rate": self._learning_rate(),
        }
        self._require_finite(metrics["val_loss"])
        assert self.bar is not None
        self.bar.set_postfix(
            {"loss": f"{train_loss:.3f}", "accuracy": f"{train_top1:.3f}", "val accuracy": f"{metrics['val_top1']:.3f}"}
        )
        self.close()
        self.epoch_sums[:] = 0
        self.reporter.on_epoch(epoch + 1, metrics)

    def close(self) -> None:
        """Finish the bar, also of an epoch that was broken off."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _close_window(self) -> None:
        # Keras' metrics are means since their last reset: shorter means show what goes on now, and an epoch's mean
        # has to be put together here anyway where two phases share the epoch.
        self._require_finite(self.window_means[0])
        self.epoch_sums += self.window_means * self.window_size
        self.window_size = 0
        self.model.reset_metrics()

    def _require_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise ClassifierError(
                f"{self.classifier_name}: the loss became {loss} by step {self.step}: lower the learning rate"
            )

    def _learning_rate(self) -> float:
        return float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))


def compiled(network: keras.Model, phase: "Phase", label_smoothing: float) -> keras.Model:
    """A model around the network's own layers, ready for the steps of a phase."""
    from .classifier import leaf_layers

    network.trainable = True
    for layer in leaf_layers(network):
        layer.trainable = phase.trains(layer)
    # Apart from the network itself: Keras would write optimizer and metrics of a compiled model into its weights file.
    model = keras.Model(network.inputs, network.outputs[0], name="training")
    variables = model.trainable_variables
    if phase.optimizer.weight_decay:
        # Pulling biases and scales to zero serves nothing.
        phase.optimizer.exclude_from_weight_decay([variable for variable in variables if len(variable.shape) < 2])
    # Built here, or the training step would be traced twice: once more for the variables the first trace creates.
    phase.optimizer.build(variables)
    model.compile(
        optimizer=phase.optimizer,
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=label_smoothing),
        metrics=[
            keras.metrics.CategoricalAccuracy(name="top1"),
            keras.metrics.CategoricalCrossentropy(from_logits=True, name="nll"),  # the loss without its smoothing
        ],
        jit_compile=False,  # XLA has no bicubic resize, and on a CPU its depthwise convolutions take ten times longer
    )
    return model


def fit(
    classifier: "KerasClassifier",
    train: Examples,
    val: Examples,
    *,
    epochs: int,
    compute: Compute,
    reporter: Reporter,
) -> None:
    """Train the classifier's network in place."""
    settings = classifier.settings
    session.configure(compute)
    precision = session.resolve_precision(compute)
    classifier.resolved |= {
        "device": session.device_name(),
        "precision": precision,
        "threads": session.num_threads(),
    }
    print(
        f"{settings.classifier}: training in {precision} on {classifier.resolved['device']}, "
        f"{classifier.resolved['threads']} CPU threads"
    )
    batches = Batches(train, settings.batch_size, classifier.seed, settings.crop_padding, settings.flip)
    progress = Progress(batches, epochs, settings.classifier, reporter)
    label_smoothing = getattr(settings, "label_smoothing", 0.0)
    with session.seeded(classifier.seed):
        network = classifier.network
        if precision != "float32":
            # A second network shares the weights' values, not the layers: those compute in float32 for good.
            network = classifier.build(f"mixed_{precision}")
            network.set_weights(classifier.network.get_weights())
        try:
            start = 0
            for phase in classifier.phases(epochs * len(batches)):
                if phase.steps == 0:
                    continue
                model = compiled(network, phase, label_smoothing)
                for epoch, first, stop in segments(start, phase.steps, len(batches)):
                    options: dict[str, Any] = {}
                    if stop == len(batches):
                        options["validation_data"] = validation_data(val, classifier.num_classes)
                    model.fit(
                        training_data(batches, classifier.num_classes, epoch, first, stop),
                        initial_epoch=epoch,
                        epochs=epoch + 1,
                        shuffle=False,
                        verbose=0,
                        callbacks=[progress],
                        **options,
                    )
                start += phase.steps
        finally:
            progress.close()
        if network is not classifier.network:
            classifier.network.set_weights(network.get_weights())
