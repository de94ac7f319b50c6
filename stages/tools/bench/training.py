"""How fast a model trains, by this project and by the baseline, with how much memory, and with how much overhead."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from stages.common import hardware, paths
from stages.common.settings import Compute
from stages.data.dataset import Prepared
from stages.models import classifier_class
from stages.models.base import Classifier
from stages.models.params import Params
from stages.tools.bench.rounds import in_fresh_process, interleave
from stages.training import fit, resolve
from stages.training.batches import LabeledImages
from stages.training.progress import Reporter

WARM_UP = 3  # steps that are not measured: the first ones trace graphs and find memory
WORKERS = min(4, max(2, Compute().cpu_threads))  # processes that load images for the baseline of torch
WHOLE = {"weights": "random", "finetune": "full"}
BARE = WHOLE | {"crop_padding": 0, "flip": False, "rand_augment": 0.0, "mixup": 0.0, "cutmix": 0.0}


class Stopwatch:
    """To be called after each step: measures `steps` of them after WARM_UP others, then says so.

    synchronize: returns when the device has done what it was given.
    """

    def __init__(self, steps: int, synchronize: Callable[[], None]) -> None:
        self.steps, self.synchronize = steps, synchronize
        self.step = 0
        self.times: list[float] = []

    def __call__(self) -> bool:
        self.step += 1
        if self.step in (WARM_UP, WARM_UP + self.steps):
            self.synchronize()
            self.times.append(time.perf_counter())
        return self.step >= WARM_UP + self.steps


def measure(settings: Params, scratch: Path, rounds: int, steps: int) -> dict[str, Any]:
    """What reports/benchmark.json holds of the models: trained whole, from random weights, on one device."""
    settings = on_one_device(settings)
    arguments = []
    for name in settings.models:
        ways = {"baseline": (baseline, settings), "ours": (ours, settings)}
        if in_fresh_process(precision, settings, name)["precision"] != "float32":
            ways["float32"] = ours, in_float32(settings)
        arguments += [(name, way, function, own, name, steps, scratch) for way, (function, own) in ways.items()]
    found = interleave(arguments, rounds)
    return {
        "warm_up": WARM_UP,
        "workers": WORKERS,
        "settings": {name: model.model_dump() for name, model in settings.models.items()},
        "models": {name: {way: [one[way][0] for one in own] for way in own[0]} for name, own in found.items()},
    }


def on_one_device(settings: Params) -> Params:
    """The same settings, for one process on one device."""
    one = {"devices": 1, "num_nodes": 1, "strategy": "auto", "threads": settings.compute.cpu_threads}
    return settings.model_copy(update={"compute": settings.compute.model_copy(update=one)})


def in_float32(settings: Params) -> Params:
    """The same settings, whatever the hardware can do: as the baseline trains."""
    return settings.model_copy(update={"compute": settings.compute.model_copy(update={"precision": "float32"})})


def precision(settings: Params, name: str) -> dict[str, Any]:
    """In which precision a model trains here."""
    return {"precision": start(settings, name, WHOLE)[0].resolved["precision"]}


def baseline(settings: Params, name: str, steps: int, scratch: Path) -> dict[str, Any]:
    """Train as the framework's tutorials do."""
    classifier, prepared = start(settings, name, WHOLE)
    framework = _framework(classifier)
    watch = Stopwatch(steps, framework.synchronize)
    framework.train(classifier, LabeledImages(*prepared.split("train")), watch)
    return _result(classifier, watch) | {"precision": "float32"}


def ours(settings: Params, name: str, steps: int, scratch: Path) -> dict[str, Any]:
    """Train by `fit`, tracked as in the stage `train`; then without augmentation, progress bar and tracking."""
    with tracked(scratch, name) as reporter:
        result = _fit(settings, name, steps, WHOLE, reporter)
    bare = _fit(settings, name, steps, BARE, Reporter(is_silent=True))
    return result | {"model_step_seconds": bare["step_seconds"]}


@contextmanager
def tracked(scratch: Path, name: str) -> Iterator[Reporter]:
    """A Reporter to a run in a store of its own in `scratch`."""
    from stages.tracking.runs import TrainingRun
    from stages.tracking.store import SQLITE, Store

    store = Store(f"{SQLITE}{scratch}/mlflow.db", scratch)
    store.experiment(store.client(), "bench")  # now: a new store takes seconds to set up
    with TrainingRun.start(store, "bench", name, params={}, tags={}) as run:
        yield Reporter(run.log_step, run.log_epoch)


def _fit(settings: Params, name: str, steps: int, changes: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    classifier, prepared = start(settings, name, changes)
    watch, batch_size = Stopwatch(steps, _framework(classifier).synchronize), classifier.settings.batch_size
    (images, labels), val = prepared.split("train"), prepared.split("val")
    rows = np.arange((WARM_UP + steps) * batch_size) % len(labels)
    train, few = LabeledImages(images[rows], labels[rows]), LabeledImages(val[0][:batch_size], val[1][:batch_size])
    reporter = replace(reporter, after_step=watch)
    fit(classifier, train, few, epochs=1, compute=settings.compute, reporter=reporter)
    return _result(classifier, watch)


def start(settings: Params, name: str, changes: dict[str, Any]) -> tuple[Any, Prepared]:
    """A model with some of its settings changed, as far as it knows them."""
    prepared, model = Prepared.open(paths.PREPARED), settings.model(name)
    model = model.model_copy(update={key: value for key, value in changes.items() if hasattr(model, key)})
    kind = classifier_class(model.classifier)
    kind.configure(settings.compute)
    classifier = kind(model, len(prepared.class_names), prepared.image_size, settings.seed)
    resolve(classifier, settings.compute)
    return classifier, prepared


def _framework(classifier: Classifier) -> ModuleType:
    """torch_baseline or keras_baseline: never both in one process."""
    return import_module(f"stages.tools.bench.{classifier.engine.removesuffix('_engine')}_baseline")


def _result(classifier: Classifier, watch: Stopwatch) -> dict[str, Any]:
    step_seconds = (watch.times[1] - watch.times[0]) / watch.steps
    return {
        **{key: classifier.resolved[key] for key in ("device", "threads", "precision")},
        "num_parameters": classifier.num_parameters,
        "steps": watch.steps,
        "step_seconds": step_seconds,
        "images_per_second": classifier.settings.batch_size / step_seconds,
        "peak_memory_mb": hardware.peak_memory_mb(),
    }
