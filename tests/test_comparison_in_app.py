"""The app reads the comparison that the pipeline writes today; it imports nothing of the pipeline."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from gui import charts, comparison
from gui.comparison import Comparison
from gui.registry import Version
from stages import compare
from stages.common import paths
from stages.data import dataset
from stages.data.corruptions import CORRUPTIONS, SEVERITIES
from stages.evaluation.summary import Answers, summarize
from stages.inference.onnx_model import softmax
from stages.models import params
from stages.tracking import explorer

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ["red_apple", "green_leaf", "blue_sea", "white_rabbit", "black_cat", "yellow_lemon"]
SUPERCLASSES = ["plants", "things & waters", "animals"]
SUPERCLASS_OF = [0, 0, 1, 2, 2, 0]
MODELS = ["vit_scratch", "vit_transfer", "mobilenet_transfer"]
SIZE = 8  # pixels
SKILL = {
    "vit_scratch": 1.0,
    "vit_transfer": 4.0,
    "mobilenet_transfer": 2.5,
}  # of the right class over the others' noise
COST = {"vit_scratch": (5.0, 246.0), "vit_transfer": (12.7, 520.0), "mobilenet_transfer": (10.2, 406.0)}
COUNTS = {"train": 60, "val": 60, "test": 120}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """As the app opens it: by the tag of a version, from the run that holds the files."""
    work = tmp_path_factory.mktemp("comparison")
    shutil.copy(ROOT / paths.PARAMS, work)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        patch.setattr(compare, "_figures", lambda *_: {})  # the app draws its own; these take a quarter of a minute
        write()
    uri = f"sqlite:///{work}/mlflow.db"
    client = MlflowClient(tracking_uri=uri)
    run_id = client.create_run(client.create_experiment("cifar100", (work / "artifacts").as_uri())).info.run_id
    client.log_artifacts(run_id, str(work / paths.REPORTS))
    return comparison.of(Version(uri, "cifar100-classifier", 1, 0, {comparison.RUN_TAG: run_id}))


def test_verdict_ranking_and_report_are_read(compared: Comparison) -> None:
    assert compared.models == ["vit_transfer", "mobilenet_transfer", "vit_scratch"]
    assert compared.verdict.startswith("**Ship vit_transfer**")
    assert compared.report.startswith("# ")
    assert set(compared.robustness) == set(MODELS)


def test_the_summary_says_what_each_model_reaches_and_costs(compared: Comparison) -> None:
    summary = compared.summary().set_index("model")
    assert list(summary.index) == compared.models
    assert (summary["low"] < summary["top1"]).all()
    assert (summary["top1"] < summary["high"]).all()
    assert (summary["milliseconds"] == [COST[model][0] for model in summary.index]).all()
    assert (summary["minutes"] == [COST[model][1] / 60 for model in summary.index]).all()


def test_every_table_has_its_columns_and_is_drawn(compared: Comparison) -> None:
    tables = {name: compared.table(name) for name in comparison.COLUMNS}
    assert all(set(table["model"]) == set(MODELS) for table in tables.values())
    assert set(tables["superclasses"]["actual"]) == set(SUPERCLASSES)
    assert "red apple" in set(tables["classes"]["class"])
    drawn = [
        charts.learning_curves(tables["curves"], tables["steps"], "top1"),
        charts.robustness(tables["robustness"], "noise"),
        charts.reliability(tables["reliability"], "after"),
        charts.superclass_confusion(tables["superclasses"], "vit_scratch", SUPERCLASSES),
        *(charts.accuracy_against_cost(compared.summary(), cost) for cost in charts.COSTS),
    ]
    assert all(chart.to_dict()["datasets"] for chart in drawn)


def test_the_explorer_holds_the_test_pictures_and_every_models_answers(compared: Comparison) -> None:
    shown = compared.explorer()
    assert shown.images.shape == (COUNTS["test"], SIZE, SIZE, 3)
    assert shown.models == MODELS
    assert shown.class_names[0] == "red apple"
    assert shown.superclass_of[5] == "plants"
    for model in MODELS:
        top1 = (shown.answers(model).predicted == shown.labels).mean()
        assert top1 == pytest.approx(compared.metrics(model)["test"]["top1"], abs=1e-6)


def write() -> None:
    """Run the stage `compare` on made-up answers, and write the explorer as `register` does."""
    rng = np.random.default_rng(0)
    splits = {split: _pictures(rng, count) for split, count in COUNTS.items()}
    about = {"dropped_from_train_because_in_test": 0, "identical_copies_in_train": 0}
    dataset.write(
        paths.PREPARED,
        paths.SCRATCH / "prepared",
        source="cifar100",
        class_names=CLASSES,
        superclass_names=SUPERCLASSES,
        superclass_of_class=SUPERCLASS_OF,
        splits=splits,
        facts=about | {"val_fraction": 0.1, "split_seed": 0, "limit_per_class": None},
    )
    models = list(params.read().models)
    for model in models:
        _write_model(rng, model, {split: labels for split, (_, labels) in splits.items()})
    compare.main()
    _write_explorer(models, dataset.Prepared.open(paths.PREPARED))


def _pictures(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    return rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8), labels


def _write_model(rng: np.random.Generator, model: str, labels: dict[str, np.ndarray]) -> None:
    milliseconds, seconds = COST[model]

    def logits(of: np.ndarray) -> np.ndarray:
        noise = rng.normal(0, 1.5, (len(of), len(CLASSES)))
        return (noise + SKILL[model] * np.eye(len(CLASSES))[of]).astype(np.float32)

    val, test = (Answers(logits(labels[split]), labels[split]) for split in ("val", "test"))
    for folder in (paths.PREDICTIONS, paths.ROBUSTNESS, paths.PROFILES, paths.METRICS, paths.RUNS / model):
        folder.mkdir(parents=True, exist_ok=True)
    np.savez(paths.PREDICTIONS / f"{model}.npz", val_logits=val.logits, test_logits=test.logits)
    corrupted = {
        f"corrupted_{name}": np.stack([logits(labels["test"][::2]) for _ in SEVERITIES]) for name in CORRUPTIONS
    }
    rows = np.arange(0, len(labels["test"]), 2)
    np.savez(paths.ROBUSTNESS / f"{model}.npz", rows=rows, ood_noise=logits(labels["val"]) / 2, **corrupted)
    _write_json(paths.METRICS / f"{model}.json", summarize(val, test, SUPERCLASS_OF))
    hardware = {"cpu": "Some CPU", "cores": 2, "memory_gb": 16.0, "system": "Linux x86_64", "python": "3.11"}
    _write_json(
        paths.PROFILES / f"{model}.json",
        {
            "onnx_sha256": "f" * 64,
            "precision": "float32",
            "num_parameters": 1_820_836,
            "multiply_adds": 120_146_688,
            "weights_bytes": 7_290_128,
            "cold_load_seconds": 1.86,
            "latency_p50_ms": milliseconds,
            "latency_p95_ms": 1.4 * milliseconds,
            "throughput_images_per_second": 380.0,
            "training_seconds": seconds,
            "training_peak_memory_mb": 1489.8,
            "hardware": hardware | {"threads": 2},
        },
    )
    files = {"float32": {"file": "model.onnx", "sha256": "f" * 64}}
    _write_json(paths.ONNX / model / "export.json", {"serves": "float32", "files": files, "int8": None})
    resolved = {"weights": "random", "device": "cpu", "precision": "bfloat16", "threads": 2}
    _write_json(
        paths.RUNS / model / "run.json",
        {
            "params": {"seed": 0},
            "resolved": resolved,
            "dataset": {"source": "cifar.tar.xz"},
            "epochs": 2,
            "seconds": seconds,
            "peak_memory_mb": 1489.8,
            "hardware": hardware,
            "versions": {"torch": "2.0"},
            "weights_sha256": "e" * 64,
            "data_sha256": "d" * 64,
        },
    )
    history = {"epoch": [1, 2], "seconds": [seconds / 2, seconds], "train_loss": [2.0, 1.0], "train_top1": [0.3, 0.5]}
    history |= {"val_loss": [1.9, 1.1], "val_top1": [0.35, 0.55], "learning_rate": [0.001, 0.0]}
    pd.DataFrame(history).to_csv(paths.RUNS / model / "history.csv", index=False)
    steps = {"step": [20, 40, 60], "seconds": [seconds / 3, seconds / 2, seconds], "train_loss": [2.5, 2.0, 1.5]}
    steps |= {"train_top1": [0.1, 0.3, 0.5], "learning_rate": [0.001, 0.001, 0.0]}
    pd.DataFrame(steps).to_csv(paths.RUNS / model / "steps.csv", index=False)


def _write_explorer(models: Sequence[str], data: dataset.Prepared) -> None:
    probabilities = {}
    for model in models:
        temperature = json.loads((paths.METRICS / f"{model}.json").read_text())["calibration"]["temperature"]
        with np.load(paths.PREDICTIONS / f"{model}.npz") as stored:
            probabilities[model] = softmax(stored["test_logits"], temperature)
    about = ("source", "class_names", "superclass_names", "superclass_of_class")
    names = {key: getattr(data, key) for key in about}
    images, labels = (data.folder / f"test_{name}.npy" for name in ("images", "labels"))
    for place, file in explorer.write(paths.REPORTS / explorer.FOLDER, images, labels, names, probabilities).items():
        if not (paths.REPORTS / place).exists():
            (paths.REPORTS / place).symlink_to(file.resolve())


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")
