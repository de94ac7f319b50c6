"""Stage `train`: fit one model to the training pictures, live in MLflow."""

import argparse
import csv
import json
import shutil
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stages import classifiers, machine, params, paths
from stages.datasets.prepared import Prepared
from stages.errors import one_line_errors
from stages.tracking import lineage
from stages.tracking.runs import WEIGHTS_SHA256, DatasetUsed, TrainingRun
from stages.tracking.store import Store

HISTORY = ("epoch", "seconds", "train_loss", "train_top1", "val_loss", "val_top1", "learning_rate")
# Changes to these are no change of the code: parameters are logged with the run, the rest is made by the pipeline.
RECORDED_ELSEWHERE = (paths.PARAMS, "dvc.lock", paths.REPORTS)
LIBRARIES = ("torch", "timm", "lightning", "tensorflow", "keras", "numpy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a key of models in params.yaml")
    name = parser.parse_args().model
    settings = params.read()
    model, epochs = settings.model(name), settings.epochs(name)
    prepared = Prepared.open(paths.PREPARED)
    # Weights that cannot be had are found here, before any picture is read.
    classifier_class = classifiers.classifier_class(model.classifier)
    classifier_class.configure(settings.compute)
    classifier = classifier_class(
        model, num_classes=len(prepared.class_names), image_size=prepared.image_size, seed=settings.seed
    )

    # Imported only now: the contract brings numpy, the error above should not wait for it.
    from stages.classifiers.classifier import Examples, Reporter

    train, val = Examples(*prepared.split("train")), Examples(*prepared.split("val"))
    scratch_model, scratch_run = _empty(paths.SCRATCH / f"model-{name}"), _empty(paths.SCRATCH / f"run-{name}")
    used = {"seed": settings.seed, "epochs": epochs, **model.model_dump(exclude={"epochs"})}
    run = TrainingRun.start(
        Store.of_repository(paths.repository_root()),
        prepared.source,
        name,
        params=used,
        tags={
            **lineage.git_tags(ignoring=RECORDED_ELSEWHERE),
            **lineage.dvc_tags(),
            "params_sha256": lineage.content_sha256(used),
            "data_sha256": prepared.data_sha256,
        },
        dataset=DatasetUsed(
            prepared.source, prepared.data_sha256, prepared.description["counts"], settings.data.origin
        ),
    )
    started = time.monotonic()

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        _append(scratch_run / "history.csv", {"epoch": epoch, "seconds": time.monotonic() - started, **metrics})
        run.log_epoch(epoch, metrics)

    with run:
        classifier.fit(train, val, epochs=epochs, compute=settings.compute, reporter=Reporter(run.log_step, on_epoch))
        seconds = time.monotonic() - started
        classifier.save(scratch_model)
        saved = json.loads((scratch_model / classifiers.DESCRIPTION).read_text(encoding="utf-8"))
        run.finish(tags={WEIGHTS_SHA256: saved["weights_sha256"], **_as_tags(classifier.resolved)})
    facts = {
        **run.record(),
        "seconds": round(seconds, 1),
        "epochs": epochs,
        "resolved": classifier.resolved,
        "weights_sha256": saved["weights_sha256"],
        "data_sha256": prepared.data_sha256,
        "peak_memory_mb": machine.peak_memory_mb(),
        "hardware": machine.describe(),
        "versions": {library: version(library) for library in LIBRARIES},
    }
    (scratch_run / "run.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    for scratch, final in ((scratch_model, paths.MODELS / name), (scratch_run, paths.RUNS / name)):
        shutil.rmtree(final, ignore_errors=True)
        final.parent.mkdir(parents=True, exist_ok=True)
        scratch.rename(final)


def _as_tags(resolved: dict[str, Any]) -> dict[str, str]:
    return {f"resolved_{key}": str(value) for key, value in resolved.items()}


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _append(file: Path, row: dict[str, float]) -> None:
    new = not file.exists()
    with file.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, HISTORY, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow({key: row[key] if key == "epoch" else f"{row[key]:.6g}" for key in HISTORY})


if __name__ == "__main__":
    with one_line_errors("train"):
        main()
