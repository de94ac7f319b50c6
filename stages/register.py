"""Stage `register`: brings the MLflow store up to date and makes the best model champion."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stages.common import paths
from stages.common.errors import UserError, one_line_errors
from stages.common.files import read_json, write_json
from stages.data.dataset import Prepared
from stages.evaluation import ood, predictions
from stages.inference.exported import Exported, chosen
from stages.inference.onnx_model import softmax
from stages.models import params
from stages.tracking import explorer
from stages.tracking.gate import Gate
from stages.tracking.package import PACKAGE_SHA256, Package, image_hashes
from stages.tracking.registered_model import Decision, GateSplit
from stages.tracking.registry import Entry, register
from stages.tracking.replay import TrainingRecord
from stages.tracking.store import Store

EXAMPLE_IMAGES = 2


def main() -> None:
    """Replay missing runs, register every model of params.yaml, choose, write reports/registered_model.json."""
    settings = params.read()
    prepared = Prepared.open(paths.PREPARED)
    store = Store.of_repository(paths.repository_root())
    name = f"{prepared.source}-classifier"
    entries = [_entry(model, prepared, settings.registry.square) for model in settings.models]
    decision = register(
        store,
        experiment=prepared.source,
        name=name,
        entries=entries,
        comparison={**_reports(list(settings.models)), **_explorer(entries, prepared)},
        seen=np.concatenate([image_hashes(prepared.split(split)[0]) for split in ("train", "val")]),
        split=GateSplit(*prepared.split("gate"), prepared.class_names, prepared.data_sha256),
        gate=Gate(settings.registry.gate, settings.registry.alpha),
    )
    packages = {entry.package.exported.model: entry.package for entry in entries}
    _write_report(name, decision, packages)
    pages = store.shown_uri if store.is_remote else f"mlflow ui --backend-store-uri {store.shown_uri}"
    # Held by neither git nor DVC's cache: a fresh clone lacks it, so DVC runs this stage there, too.
    write_json(paths.REGISTERED, {model: package.metadata[PACKAGE_SHA256] for model, package in packages.items()})
    print(
        f"Registered {', '.join(packages)} as {name}: {decision.reason} (champion: version {decision.champion}).\n"
        f"Classify an image: streamlit run gui/app.py\nLook at the runs:  {pages}"
    )


def _entry(model: str, prepared: Prepared, square: str) -> Entry:
    exported = Exported.open(model)
    run = paths.RUNS / model / str(exported.seed)
    training = TrainingRecord.read(run)
    exported.verified()  # before anything is registered
    if training.weights_sha256 != exported.description["weights_sha256"]:
        raise UserError(f"{run} and {exported.file.parent} tell of different weights: run `dvc repro export@{model}`")
    file, remedy = paths.METRICS / f"{model}.json", f"run `dvc repro evaluate@{model}`"
    metrics = read_json(file, remedy)
    try:
        _ = metrics["val"]["top1"], *(metrics["test"][key] for key in ("top1", "top1_low", "top1_high"))
        about = {
            **_names(prepared),
            "square": square,
            "temperature": metrics["calibration"]["temperature"],
            "conformal": {cover: metrics["conformal"][cover]["threshold"] for cover in ("90", "95")},
            "ood": {key: metrics["ood"][key] for key in ("score", "threshold", "reason")},
            "data_sha256": prepared.data_sha256,
        }
    except (KeyError, TypeError) as error:
        raise UserError(f"{file} lacks {error}: {remedy}") from error
    images, labels = prepared.split("test")
    val, needed = predictions.of_split(model, prepared, "val"), about["ood"]["score"] == "mahalanobis"
    reference = ood.reference(val.logits / about["temperature"], val.labels) if needed else None
    on_gate = predictions.of_split(model, prepared, "gate")
    return Entry(
        Package(exported, images[:EXAMPLE_IMAGES].copy(), about, metrics, reference),
        training,
        right=on_gate.right,
        n_test=len(labels),
        plots=sorted(paths.PLOTS.glob(f"*_{model}.png")),
        others=[TrainingRecord.read(run.with_name(seed)) for seed in chosen(model)["val_top1"] if seed != run.name],
    )


def _names(prepared: Prepared) -> dict[str, Any]:
    names = ("source", "class_names", "superclass_names", "superclass_of_class")
    return {name: getattr(prepared, name) for name in names}


def _explorer(entries: list[Entry], prepared: Prepared) -> dict[str, Path]:
    probabilities = {}
    for entry in entries:
        model = entry.package.exported.model
        logits, _ = predictions.of_split(model, prepared, "test")
        probabilities[model] = softmax(logits, entry.package.about["temperature"])
    images, labels = prepared.folder / "test_images.npy", prepared.folder / "test_labels.npy"
    return explorer.write(paths.SCRATCH / explorer.FOLDER, images, labels, _names(prepared), probabilities)


def _reports(models: list[str]) -> dict[str, Path]:
    if not paths.COMPARISON.is_file():
        raise UserError(f"{paths.COMPARISON} is missing: run `dvc repro compare`")
    files = [paths.COMPARISON, paths.COMPARISON_DATA, paths.CLAIMS, paths.ROBUSTNESS_METRICS]
    files += [paths.METRICS / f"{model}.json" for model in models]
    files += [file for folder in (paths.TABLES, paths.PLOTS) for file in sorted(folder.glob("*.*"))]
    studies = read_json(paths.COMPARISON_DATA, "run `dvc repro compare`").get("studies", [])  # of these data
    files += [file for name in studies for file in sorted(paths.STUDIES.glob(f"{name}.*"))]
    return {file.relative_to(paths.REPORTS).as_posix(): file for file in files}


def _write_report(name: str, decision: Decision, packages: Mapping[str, Package]) -> None:
    """What was decided. In an empty store the same models give the same file; a champion that was there has a say."""
    keys = ("precision", "onnx_sha256", "weights_sha256", "data_sha256")
    report = {
        "registered_model": name,
        "champion": decision.model,
        "champion_weights_sha256": decision.weights_sha256,
        "decision": decision.reason,
        "models": {
            model: {
                "val_top1": package.metrics["val"]["top1"],
                **{key: package.metadata[key] for key in keys},
            }
            for model, package in packages.items()
        },
    }
    write_json(paths.REGISTERED_MODEL, report)


if __name__ == "__main__":
    with one_line_errors("register"):
        main()
