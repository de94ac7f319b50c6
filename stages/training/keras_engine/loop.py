"""Training of the Keras classifiers by Keras' own fit: phases of steps, resumed at any of them.

Keras' own BackupAndRestore restores an epoch, not a step, and writes in place; Steps takes its part here.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from stages.common.errors import UserError
from stages.models.base import Examples, Training
from stages.models.keras_engine import session
from stages.training.batches import Batch, Batches
from stages.training.checkpoints import Checkpoints
from stages.training.progress import REPORT_EVERY, Progress

if TYPE_CHECKING:
    from stages.models.keras_engine.model import KerasClassifier, Phase

VALIDATION_BATCH = 256  # pictures


def segments(start: int, end: int, epoch_length: int) -> Iterator[tuple[int, int, int]]:
    """Cut the steps from `start` up to `end` where epochs end: (epoch, first batch, batch after the last), from 0."""
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
    examples: Callable[[], Iterator[Batch]], length: int, batches: Batches, num_classes: int
) -> tf.data.Dataset:
    # A signature with an open batch size, because each new size would trace the training step again.
    signature = (
        tf.TensorSpec((None, *batches.examples.images.shape[1:]), tf.uint8),
        tf.TensorSpec((None, num_classes), tf.float32),
    )
    one_hot = np.eye(num_classes, dtype=np.float32)

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for batch in examples():
            yield batch.images, batch.share * one_hot[batch.labels] + (1 - batch.share) * one_hot[batch.others]

    dataset = tf.data.Dataset.from_generator(pairs, output_signature=signature)
    return dataset.apply(tf.data.experimental.assert_cardinality(length)).prefetch(2)


class Steps(keras.callbacks.Callback):
    """Tells Progress of every step, and leaves checkpoints. Lives through all calls of Keras' fit."""

    def __init__(self, progress: Progress, checkpoints: Checkpoints | None) -> None:
        super().__init__()
        self.progress = progress
        self.checkpoints = checkpoints
        self.step = progress.step
        self.logs: dict[str, float] = {}

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        self.step += 1
        self.logs = logs
        self.progress.advance()
        if self.step % REPORT_EVERY == 0:
            self.close_window()
            if self.checkpoints and self.checkpoints.due() and self.step % len(self.progress.batches):
                self.save()

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self.close_window()
        if "val_top1" not in logs:
            return  # only a phase ended here
        self.progress.end_epoch(float(logs["val_nll"]), float(logs["val_top1"]))
        if self.checkpoints:
            self.save()

    def close_window(self) -> None:
        """Count what was seen since the last report."""
        size = self.progress.batches.examples_between(self.progress.step, self.step)
        if size:
            rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
            # Keras' metrics are means since their last reset.
            self.progress.add(self.step, self.logs["loss"] * size, self.logs["top1"] * size, learning_rate=rate)
            self.model.reset_metrics()

    def save(self) -> None:
        """A checkpoint: the model's variables, the states of its random numbers among them, and the optimizer's."""
        assert self.checkpoints is not None
        arrays = [np.asarray(value) for value in _state(self.model)]

        def write(file: Path) -> None:
            with file.open("wb") as stream:
                np.savez(stream, *arrays)

        self.checkpoints.save(write, {"step": self.step, "epoch": self.progress.state()})


def _state(model: keras.Model) -> list[Any]:
    return [*model.variables, *model.optimizer.variables]


def compiled(network: keras.Model, phase: "Phase", label_smoothing: float) -> keras.Model:
    """A model around the network's own layers, ready for the steps of a phase."""
    from stages.models.keras_engine.model import leaf_layers

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


def fit(classifier: "KerasClassifier", training: Training) -> None:
    """Train the classifier's network in place."""
    settings, resolved = classifier.settings, classifier.resolved
    print(
        f"{settings.classifier}: training in {resolved['precision']} on {resolved['device']}, "
        f"{resolved['threads']} CPU threads",
        flush=True,
    )
    batches = Batches.of(training.train, settings, classifier.seed)
    progress = Progress(settings.classifier, batches, training.epochs, classifier.num_classes, training.reporter)
    if training.compute.deterministic:
        tf.config.experimental.enable_op_determinism()  # for the rest of the process
    with session.seeded(classifier.seed):
        network = classifier.network
        if resolved["precision"] != "float32":
            # A second network shares the weights' values, not the layers: those compute in float32 for good.
            network = classifier.build(f"mixed_{resolved['precision']}")
            network.set_weights(classifier.network.get_weights())
        try:
            _train(classifier, network, batches, progress, training)
        except (tf.errors.ResourceExhaustedError, MemoryError) as error:
            raise UserError(
                f"{settings.classifier}: out of memory with batch_size = {batches.batch_size}: lower it, or the size "
                "of pictures or network"
            ) from error
        finally:
            progress.close()
        if network is not classifier.network:
            classifier.network.set_weights(network.get_weights())


def _train(
    classifier: "KerasClassifier",
    network: keras.Model,
    batches: Batches,
    progress: Progress,
    training: Training,
) -> None:
    checkpoints = training.checkpoints
    label_smoothing = getattr(classifier.settings, "label_smoothing", 0.0)
    checkpoint = checkpoints.latest if checkpoints else None
    if checkpoint:
        progress.resume(int(checkpoint.progress["step"]), checkpoint.progress["epoch"])
    steps = Steps(progress, checkpoints)
    end = 0
    for phase in classifier.phases(progress.epochs * len(batches)):
        start, end = end, end + phase.steps
        # A checkpoint at the border of two phases belongs to the first: only its network is of use to the second.
        if phase.steps == 0 or end < steps.step:
            continue
        model = compiled(network, phase, label_smoothing)
        if checkpoint and start < steps.step:
            _load(model, checkpoint.file)
        for epoch, first, stop in segments(max(start, steps.step), end, len(batches)):
            options: dict[str, Any] = {}
            if stop == len(batches):
                options["validation_data"] = validation_data(training.val, classifier.num_classes)
            model.fit(
                training_data(batches, classifier.num_classes, epoch, first, stop),
                initial_epoch=epoch,
                epochs=epoch + 1,
                shuffle=False,
                verbose=0,
                callbacks=[steps],
                **options,
            )


def _load(model: keras.Model, file: Path) -> None:
    with np.load(file, allow_pickle=False) as arrays:
        for index, variable in enumerate(_state(model)):
            variable.assign(arrays[f"arr_{index}"])
