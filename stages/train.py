"""Stage `train`: fit one model to the training images, once for each seed, live in MLflow."""

import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from stages import training
from stages.common import hardware, paths
from stages.common.errors import one_line_errors
from stages.common.files import json_sha256, replacing_folder
from stages.common.settings import process_rank
from stages.data.dataset import Prepared
from stages.models import classifier_class, params, save
from stages.models.base import Classifier
from stages.models.params import Params
from stages.tracking import lineage
from stages.tracking.runs import PARAMS, WEIGHTS_SHA256, DatasetUsed, TrainingRun
from stages.tracking.store import Store
from stages.training.batches import LabeledImages
from stages.training.checkpoints import Checkpoints, code_sha256
from stages.training.head import FeatureCache
from stages.training.progress import Reporter

COLUMNS = {  # of the curves, a file each
    "history": ["epoch", "seconds", "train_loss", "train_top1", "val_loss", "val_top1", "learning_rate"],
    "steps": ["step", "seconds", "train_loss", "train_top1", "learning_rate"],
    "learning": ["images", "seconds", "val_top1", "val_loss"],
}
LIBRARIES = ("torch", "timm", "lightning", "tensorflow", "keras", "numpy")
MODEL, RUN, CONFIGURATION = "model", "run", "configuration.json"  # of a seed whose training is over, in scratch


def main() -> None:
    name, settings = params.read_for_model(__doc__)
    prepared = Prepared.open(paths.PREPARED)
    classifier_class(settings.model(name).classifier).configure(settings.compute)
    finished = [train(name, settings, prepared, seed) for seed in settings.seeds]
    if process_rank() > 0:
        return
    # All are complete before the first of them replaces the former.
    with replacing_folder(paths.RUNS / name) as runs, replacing_folder(paths.MODELS / name) as models:
        for seed, (folder, _) in zip(settings.seeds, finished, strict=True):
            shutil.copytree(folder / RUN, runs / str(seed))
            shutil.copytree(folder / MODEL, models / str(seed))
    for folder, checkpoints in finished:
        shutil.rmtree(folder)
        checkpoints.clear()


def train(name: str, settings: Params, prepared: Prepared, seed: int) -> tuple[Path, Checkpoints]:
    """Train with one seed, unless that is done; returns the folder in scratch with MODEL and RUN, and its checkpoints.

    Both stay until the last seed is done, so that an interrupted stage trains no seed twice.
    """
    model, length, compute = settings.model(name), settings.length(name), settings.compute
    # Weights and devices that cannot be had are found here, before any image is read.
    kind = classifier_class(model.classifier)
    classifier = kind(model, num_classes=len(prepared.class_names), image_size=prepared.image_size, seed=seed)
    training.resolve(classifier, compute)

    fraction = settings.budget.train_fraction
    used = {"seed": seed, **length, "train_fraction": fraction, **model.model_dump(exclude={"epochs"})}
    where = compute.model_dump(exclude={"checkpoint_minutes"})
    of_features = {"data": prepared.data_sha256, "code": code_sha256(kind), "libraries": _libraries()}
    configuration = {"parameters": used, "compute": where, "resolved": classifier.resolved, **of_features}
    checkpoints = Checkpoints(paths.SCRATCH / f"checkpoints-{name}-{seed}", configuration, compute.checkpoint_minutes)
    fit = partial(
        training.fit,
        classifier,
        LabeledImages(*prepared.training(fraction, settings.data.seed)),
        LabeledImages(*prepared.split("val")),
        **length,
        compute=compute,
        checkpoints=checkpoints,
        features=FeatureCache(paths.SCRATCH / "features", of_features),
        learning=True,
    )
    finished, marker = paths.SCRATCH / f"trained-{name}-{seed}", json.dumps(checkpoints.configuration)
    is_finished = (finished / CONFIGURATION).exists() and (finished / CONFIGURATION).read_text("utf-8") == marker
    if process_rank() > 0 or is_finished:
        # One of several processes that train one model: rank 0 logs. All go through all seeds, one that is finished
        # included: from its last checkpoint, which the others may not have.
        if training.runs_in_processes(classifier):
            fit()
        return finished, checkpoints
    read = {**used, "data.seed": settings.data.seed, **{f"compute.{key}": value for key, value in where.items()}}
    run = start_run(name, read, prepared, settings.data.origin, checkpoints.notes)
    with replacing_folder(finished) as folder:
        for part in (MODEL, RUN):
            (folder / part).mkdir()
        follow(run, fit, classifier, length, checkpoints, folder)
        (folder / CONFIGURATION).write_text(marker, encoding="utf-8")
    return finished, checkpoints


def start_run(
    name: str, read: Mapping[str, Any], prepared: Prepared, origin: str, notes: dict[str, Any]
) -> TrainingRun:
    """The training's run in MLflow; read: the parameters. notes: of the same training, if it was interrupted."""
    run = TrainingRun.start(
        Store.of_repository(paths.repository_root()),
        prepared.source,
        name,
        params=read,
        tags={
            **lineage.git_tags(ignoring=lineage.RECORDED_ELSEWHERE),
            **lineage.dvc_tags(),
            "params_sha256": json_sha256(read),
            "data_sha256": prepared.data_sha256,
        },
        dataset=DatasetUsed(prepared.source, prepared.data_sha256, prepared.description["counts"], origin),
        files={PARAMS: paths.PARAMS.read_text(encoding="utf-8")},
        **notes,
    )
    notes |= {"training_id": run.description.training_id, "started": run.description.started}
    return run


def follow(
    run: TrainingRun,
    fit: Callable[..., training.Spent],
    classifier: Classifier,
    length: Mapping[str, Any],
    checkpoints: Checkpoints,
    folder: Path,
) -> None:
    """Train by `fit`, logging to `run`; write the weights and what is known of the training into `folder`."""
    curves: dict[str, list[dict[str, float]]] = {name: checkpoints.notes.setdefault(name, []) for name in COLUMNS}
    log: dict[str, Callable[[Any, dict[str, float]], None]] = {
        "history": run.log_epoch,
        "steps": run.log_step,
        "learning": run.log_learning,
    }

    def reported(curve: str, at: float, metrics: dict[str, float]) -> None:
        curves[curve].append({COLUMNS[curve][0]: at, "seconds": checkpoints.seconds, **metrics})
        log[curve](at, metrics)

    with run:
        spent = fit(
            reporter=Reporter(partial(reported, "steps"), partial(reported, "history"), partial(reported, "learning"))
        )
        seconds = checkpoints.seconds
        weights_sha256 = save(classifier, folder / MODEL)
        resolved = {f"resolved_{key}": str(value) for key, value in classifier.resolved.items()}
        run.finish(tags={WEIGHTS_SHA256: weights_sha256, "trained_epochs": str(spent.epochs), **resolved})
    [(kind, amount)] = length.items()
    facts = {
        **run.record(),
        "seconds": round(seconds, 1),
        "epochs": spent.epochs,
        "budget": {"kind": kind, "amount": amount, **spent._asdict()},
        "resolved": classifier.resolved,
        "weights_sha256": weights_sha256,
        "data_sha256": run.description.tags["data_sha256"],
        "peak_memory_mb": hardware.peak_memory_mb(),
        "hardware": hardware.describe(),
        "versions": _libraries(),
    }
    (folder / RUN / "run.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    for curve, rows in curves.items():
        table = pd.DataFrame(rows, columns=COLUMNS[curve])
        table.to_csv(folder / RUN / f"{curve}.csv", index=False, float_format="%.6g")
    (folder / RUN / PARAMS).write_text(run.description.files[PARAMS], encoding="utf-8")


def _libraries() -> dict[str, str]:
    return {library: version(library) for library in LIBRARIES}


if __name__ == "__main__":
    with one_line_errors("train"):
        main()
