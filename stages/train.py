"""Stage `train`: fit one model to the training pictures, live in MLflow."""

import argparse
import csv
import json
import shutil
from functools import partial
from importlib.metadata import version
from pathlib import Path

from stages.common import hardware, paths
from stages.common.errors import one_line_errors
from stages.common.files import json_sha256
from stages.common.settings import process_rank
from stages.data.dataset import Prepared
from stages.models import DESCRIPTION, classifier_class, code_sha256, params
from stages.tracking import lineage
from stages.tracking.runs import PARAMS, WEIGHTS_SHA256, DatasetUsed, TrainingRun
from stages.tracking.store import Store

HISTORY = ("epoch", "seconds", "train_loss", "train_top1", "val_loss", "val_top1", "learning_rate")
STEPS = ("step", "seconds", "train_loss", "train_top1", "learning_rate")
# Changes to these are no change of the code: parameters are logged with the run, the rest is made by the pipeline.
RECORDED_ELSEWHERE = (paths.PARAMS, "dvc.lock", paths.REPORTS)
LIBRARIES = ("torch", "timm", "lightning", "tensorflow", "keras", "numpy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a key of models in params.yaml")
    name = parser.parse_args().model
    settings = params.read()
    model, epochs, compute = settings.model(name), settings.epochs(name), settings.compute
    prepared = Prepared.open(paths.PREPARED)
    # Weights and devices that cannot be had are found here, before any picture is read.
    kind = classifier_class(model.classifier)
    kind.configure(compute)
    classifier = kind(model, num_classes=len(prepared.class_names), image_size=prepared.image_size, seed=settings.seed)
    classifier.resolve(compute)

    # Imported only now: the contract brings numpy, the error above should not wait for it.
    from stages.models.base import Examples, Reporter
    from stages.training.checkpoints import Checkpoints
    from stages.training.head import FeatureCache

    fraction = settings.budget.train_fraction
    train, val = Examples(*prepared.training(fraction, settings.data.seed)), Examples(*prepared.split("val"))
    used = {"seed": settings.seed, "epochs": epochs, "train_fraction": fraction, **model.model_dump(exclude={"epochs"})}
    where = compute.model_dump(exclude={"checkpoint_minutes"})
    libraries = {library: version(library) for library in LIBRARIES}
    configuration = {
        "parameters": used,
        "compute": where,
        "resolved": classifier.resolved,
        "data": prepared.data_sha256,
        "code": code_sha256(kind),
        "libraries": libraries,
    }
    features = FeatureCache(
        paths.SCRATCH / "features", {key: configuration[key] for key in ("data", "code", "libraries")}
    )
    checkpoints = Checkpoints(paths.SCRATCH / f"checkpoints-{name}", configuration, compute.checkpoint_minutes)
    fit = partial(
        classifier.fit, train, val, epochs=epochs, compute=compute, checkpoints=checkpoints, features=features
    )
    if process_rank() > 0:
        # One of several processes that train one model: the first one keeps the books.
        if classifier.trains_in_processes:
            fit(reporter=Reporter.silent())
        return
    notes = checkpoints.notes  # of the same training, if it was broken off
    read = {**used, "data.seed": settings.data.seed, **{f"compute.{key}": value for key, value in where.items()}}
    params_yaml = paths.PARAMS.read_text(encoding="utf-8")
    run = TrainingRun.start(
        Store.of_repository(paths.repository_root()),
        prepared.source,
        name,
        params=read,
        tags={
            **lineage.git_tags(ignoring=RECORDED_ELSEWHERE),
            **lineage.dvc_tags(),
            "params_sha256": json_sha256(read),
            "data_sha256": prepared.data_sha256,
        },
        dataset=DatasetUsed(
            prepared.source, prepared.data_sha256, prepared.description["counts"], settings.data.origin
        ),
        files={PARAMS: params_yaml},
        **notes,
    )
    history, steps = notes.setdefault("history", []), notes.setdefault("steps", [])
    notes |= {"training_id": run.description.training_id, "started": run.description.started}

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        history.append({"epoch": epoch, "seconds": checkpoints.seconds, **metrics})
        run.log_epoch(epoch, metrics)

    def on_step(step: int, metrics: dict[str, float]) -> None:
        steps.append({"step": step, "seconds": checkpoints.seconds, **metrics})
        run.log_step(step, metrics)

    scratch_model, scratch_run = _empty(paths.SCRATCH / f"model-{name}"), _empty(paths.SCRATCH / f"run-{name}")
    with run:
        fit(reporter=Reporter(on_step, on_epoch))
        seconds = checkpoints.seconds
        classifier.save(scratch_model)
        saved = json.loads((scratch_model / DESCRIPTION).read_text(encoding="utf-8"))
        resolved = {f"resolved_{key}": str(value) for key, value in classifier.resolved.items()}
        run.finish(tags={WEIGHTS_SHA256: saved["weights_sha256"], **resolved})
    facts = {
        **run.record(),
        "seconds": round(seconds, 1),
        "epochs": epochs,
        "resolved": classifier.resolved,
        "weights_sha256": saved["weights_sha256"],
        "data_sha256": prepared.data_sha256,
        "peak_memory_mb": hardware.peak_memory_mb(),
        "hardware": hardware.describe(),
        "versions": libraries,
    }
    (scratch_run / "run.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    _write_rows(scratch_run / "history.csv", HISTORY, history)
    _write_rows(scratch_run / "steps.csv", STEPS, steps)
    (scratch_run / PARAMS).write_text(params_yaml, encoding="utf-8")
    for scratch, final in ((scratch_model, paths.MODELS / name), (scratch_run, paths.RUNS / name)):
        shutil.rmtree(final, ignore_errors=True)
        final.parent.mkdir(parents=True, exist_ok=True)
        scratch.rename(final)
    checkpoints.clear()


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _write_rows(file: Path, columns: tuple[str, ...], rows: list[dict[str, float]]) -> None:
    """columns: the first one counts, the others are measured."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: row[key] if key == columns[0] else f"{row[key]:.6g}" for key in columns})


if __name__ == "__main__":
    with one_line_errors("train"):
        main()
