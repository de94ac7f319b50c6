"""Training of the Keras classifiers by Keras' own fit: phases of steps, resumed at any of them.

Keras' own BackupAndRestore restores an epoch, not a step, and writes in place; Steps takes its part here.
"""

import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from stages.common.settings import Compute
from stages.models.keras_engine import session
from stages.models.keras_engine.model import KerasClassifier, Phase, leaf_layers
from stages.training.batches import Batches, LabeledImages
from stages.training.progress import PROBE_WARM_UP, REPORT_EVERY, Progress

VALIDATION_BATCH = 256  # images


def train(classifier: KerasClassifier, val: LabeledImages, progress: Progress, compute: Compute) -> None:
    """Train the classifier's network in place."""
    if compute.deterministic:
        tf.config.experimental.enable_op_determinism()  # for the rest of the process
    with session.seeded(classifier.seed):
        progress.plan(lambda: time_steps(classifier, progress))
    with session.seeded(classifier.seed):
        _train(classifier, val, progress)


def time_steps(classifier: KerasClassifier, progress: Progress) -> list[float]:
    """How long the optimizer steps of a short training take, some to warm up in each phase left out: of other networks
    of the same shape."""
    batches, seconds = progress.batches, []
    for phase in classifier.phases(progress.probe().steps):
        ends: list[float] = []
        watch = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs, ends=ends: ends.append(time.perf_counter())
        )
        model = compiled((phase.build or classifier.build)(_policy(classifier)), phase, _smoothing(classifier))
        needed, epoch = PROBE_WARM_UP + phase.steps, 0
        while phase.steps and len(ends) < needed:
            data = Data(batches, classifier.num_classes, epoch, 0, min(len(batches), needed - len(ends)))
            model.fit(data, shuffle=False, verbose=0, callbacks=[watch])
            epoch += 1
        seconds += np.diff(ends)[PROBE_WARM_UP - 1 :].tolist()
    return seconds


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory did not suffice."""
    return isinstance(error, (tf.errors.ResourceExhaustedError, MemoryError))


def _train(classifier: KerasClassifier, val: LabeledImages, progress: Progress) -> None:
    batches, policy = progress.batches, _policy(classifier)
    # Networks of other precision or size share the weights' values, not the layers: those compute in theirs for good.
    networks: dict[Any, keras.Model] = {None: classifier.network if policy == "float32" else classifier.build(policy)}
    checkpoint = progress.checkpoints.latest if progress.checkpoints else None
    if checkpoint:
        progress.resume(checkpoint.progress)
    validation = np.asarray(val.images), np.eye(classifier.num_classes, dtype=np.float32)[val.labels]
    steps = Steps(progress)
    end, model = 0, classifier.network
    for phase in classifier.phases(progress.steps):
        start, end = end, end + phase.steps
        # A checkpoint at the border of two phases belongs to the first: only its network is of use to the second.
        if phase.steps == 0 or end < steps.step:
            continue
        if phase.build and phase.build not in networks:
            networks[phase.build] = phase.build(policy)
        before, model = model, compiled(networks[phase.build], phase, _smoothing(classifier))
        _assign(model.variables, before.variables)
        if checkpoint and start < steps.step:
            with np.load(checkpoint.file, allow_pickle=False) as arrays:
                _assign(_state(model), [arrays[f"arr_{index}"] for index in range(len(arrays))])
        elif phase.continues:
            _assign(model.optimizer.variables, before.optimizer.variables)
        while steps.step < end:  # as far as the epoch goes: steps counts along
            epoch, first = divmod(steps.step, len(batches))
            stop = min(len(batches), first + end - steps.step)
            is_last = progress.is_last_of_epoch(steps.step - first + stop)
            model.fit(
                Data(batches, classifier.num_classes, epoch, first, stop),
                initial_epoch=epoch,
                epochs=epoch + 1,
                shuffle=False,
                verbose=0,
                callbacks=[steps],
                validation_data=validation if is_last else None,
                validation_batch_size=VALIDATION_BATCH,
            )
    _assign(classifier.network.variables, model.variables)


class Data(keras.utils.PyDataset):
    """Batches `first` up to `stop` of an epoch: images (B, H, W, 3) uint8, targets (B, C) float32."""

    def __init__(self, batches: Batches, num_classes: int, epoch: int, first: int, stop: int) -> None:
        super().__init__()
        self.batches, self.epoch, self.first, self.stop = batches, epoch, first, stop
        self.order = batches.order(epoch)
        self.one_hot = np.eye(num_classes, dtype=np.float32)

    def __len__(self) -> int:
        return self.stop - self.first

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        batch = self.batches.batch(self.epoch, self.first + index, self.order)
        targets = batch.share * self.one_hot[batch.labels] + (1 - batch.share) * self.one_hot[batch.others]
        return batch.images, targets


class Steps(keras.callbacks.Callback):
    """Counts every step in Progress and leaves checkpoints. Lives through all calls of Keras' fit."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress
        self.step = progress.step
        self.logs: dict[str, float] = {}

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        self.step += 1
        self.logs = logs
        self.progress.advance()
        is_report = self.step % REPORT_EVERY == 0
        if is_report:
            self.close_window()
        if self.progress.has_point(self.step):
            self.progress.measure_few(self.step, self.measure)
        if is_report and self.progress.checkpoint_is_due():
            self.save()

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self.close_window()
        if "val_top1" in logs:  # else only a phase ended here
            self.progress.end_epoch(float(logs["val_nll"]), float(logs["val_top1"]))
            self.save()

    def close_window(self) -> None:
        """Count what was seen since the last report."""
        seen = self.progress.batches.images_until
        size = seen(self.step) - seen(self.progress.step)
        if size:
            rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
            # Keras' metrics are means since their last reset.
            self.progress.add(self.step, self.logs["loss"] * size, self.logs["top1"] * size, learning_rate=rate)
            self.model.reset_metrics()

    def measure(self, val: LabeledImages) -> tuple[float, float]:
        """Loss in nats and top-1 of the network as it is; Keras' own evaluate would reset the metrics of fit."""
        starts = range(0, len(val.labels), VALIDATION_BATCH)
        logits = np.concatenate(
            [self.model.predict_on_batch(val.images[start : start + VALIDATION_BATCH]) for start in starts]
        )
        losses = keras.losses.sparse_categorical_crossentropy(val.labels, logits, from_logits=True)
        return float(keras.ops.mean(losses)), float((logits.argmax(axis=1) == val.labels).mean())

    def save(self) -> None:
        """A checkpoint: the model's variables, the states of its random numbers among them, and the optimizer's."""

        def write(file: Path) -> None:
            with file.open("wb") as stream:
                np.savez(stream, *(np.asarray(value) for value in _state(self.model)))

        self.progress.save(write)


def _policy(classifier: KerasClassifier) -> str:
    precision = classifier.resolved["precision"]
    return "float32" if precision == "float32" else f"mixed_{precision}"


def _smoothing(classifier: KerasClassifier) -> float:
    return getattr(classifier.settings, "label_smoothing", 0.0)


def _state(model: keras.Model) -> list[Any]:
    return [*model.variables, *model.optimizer.variables]


def _assign(variables: list[Any], values: list[Any]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def compiled(network: keras.Model, phase: Phase, label_smoothing: float) -> keras.Model:
    """A model around the network's own layers, ready for the steps of a phase."""
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
