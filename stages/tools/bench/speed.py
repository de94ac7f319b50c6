"""How fast a model trains, by this project and by notebook, how fast it answers, and what memory it takes."""

import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.common import hardware
from stages.common.errors import UserError
from stages.models.base import Classifier, Examples, Reporter
from stages.tools.bench.job import Job
from stages.training.batches import Batches
from stages.training.checkpoints import Checkpoints

if TYPE_CHECKING:
    from stages.tracking.runs import TrainingRun

WARM_UP = 3  # steps that are not measured: the first ones trace graphs and find memory
LEAST = 2  # steps to measure, however long they take
FORWARD_BATCH = 64  # pictures, as in the stage `profile`


class Stopwatch:
    """To be called after each step: leaves out the first WARM_UP, then says whether enough were measured.

    least, seconds: what to measure, both at least.
    wait: returns when the device has done what it was given.
    """

    def __init__(self, least: int, seconds: float, wait: Callable[[], None]) -> None:
        self.least = least
        self.seconds = seconds
        self.wait = wait
        self.steps = -WARM_UP
        self.started = self.step_seconds = 0.0

    def __call__(self) -> bool:
        self.steps += 1
        if self.steps == 0:
            self.wait()
            self.started = time.perf_counter()
        if self.steps < self.least or time.perf_counter() - self.started < self.seconds:
            return False
        self.wait()
        self.step_seconds = (time.perf_counter() - self.started) / self.steps
        return True


class TimedCheckpoints(Checkpoints):
    """save_seconds: how long the last one took."""

    save_seconds = 0.0

    def save(self, *arguments: Any) -> None:
        started = time.perf_counter()
        super().save(*arguments)
        self.save_seconds = time.perf_counter() - started


def notebook(job: Job, seconds: float) -> dict[str, Any]:
    """Train the notebook way for about so long."""
    classifier, _ = job.start()
    way = _way_of(classifier)
    watch = Stopwatch(LEAST, seconds, way.wait)
    num_parameters = way.train_as_notebook(classifier, job.examples("train"), watch)
    return _training(classifier, watch) | {"num_parameters": num_parameters, "precision": "float32"}


def ours(job: Job, steps: int, seconds: float) -> dict[str, Any]:
    """Train by `fit`, checkpoints and tracking as in the stage `train`, measuring so many steps; then what is in them.

    seconds: how long to measure the forward pass.
    """
    classifier, compute = job.start()
    way, settings = _way_of(classifier), classifier.settings
    total = WARM_UP + steps
    watch = Stopwatch(steps, 0.0, way.wait)
    train, val = job.examples("train"), job.examples("val")
    checkpoints = TimedCheckpoints(Path(job.scratch) / "checkpoints", {}, compute.checkpoint_minutes)
    with _tracking(job) as run:
        classifier.fit(
            _first(train, total * settings.batch_size),
            _first(val, settings.batch_size),
            epochs=1,
            compute=compute,
            reporter=Reporter(run.log_step, run.log_epoch, after_step=watch),
            checkpoints=checkpoints,
        )
    checkpoints.clear()
    result = _training(classifier, watch)

    step = way.model_step(classifier, Batches.of(train, settings, job.seed).batch(0, 0), compute)
    model_watch = Stopwatch(steps, 0.0, way.wait)
    for index in range(total):
        step(index / total)
        model_watch()

    images, forward_watch = _first(val, FORWARD_BATCH).images, Stopwatch(LEAST, seconds, way.wait)
    classifier.logits(images)
    while not forward_watch():
        classifier.logits(images)
    return result | {
        "num_parameters": classifier.num_parameters,
        "precision": classifier.resolved["precision"],
        "model_step_seconds": model_watch.step_seconds,
        "checkpoint_seconds": checkpoints.save_seconds,
        "forward_images_per_second": FORWARD_BATCH / forward_watch.step_seconds,
    }


def _training(classifier: Classifier, watch: Stopwatch) -> dict[str, Any]:
    return {
        "device": classifier.resolved["device"],
        "threads": classifier.resolved["threads"],
        "steps": watch.steps,
        "step_seconds": watch.step_seconds,
        "images_per_second": classifier.settings.batch_size / watch.step_seconds,
        "peak_memory_mb": hardware.peak_memory_mb(),
    }


def _way_of(classifier: Classifier) -> ModuleType:
    """torch_way or keras_way: never both in one process."""
    modules = " ".join(parent.__module__ for parent in type(classifier).__mro__)
    for framework in ("torch", "keras"):
        if f".{framework}_engine." in modules:
            return import_module(f"stages.tools.bench.{framework}_way")
    raise UserError(f"{classifier.settings.classifier} is trained by neither engine: the benchmark knows no other")


def _first(examples: Examples, count: int) -> Examples:
    """So many examples, from the first on; where there are fewer, again and again."""
    rows = np.arange(count) % len(examples.labels)
    return Examples(examples.images[rows], examples.labels[rows])


def _tracking(job: Job) -> "TrainingRun":
    """A run in a store of its own, which answers: a new one takes seconds to set up."""
    # Takes seconds to import, and only one way of the two needs it.
    from stages.tracking.runs import TrainingRun
    from stages.tracking.store import SQLITE, Store

    folder = Path(job.scratch)
    store = Store(f"{SQLITE}{folder}/mlflow.db", folder, folder)
    store.experiment(store.client(), "bench")
    return TrainingRun.start(store, "bench", job.model, params={}, tags={})
