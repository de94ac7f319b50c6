"""A comparison of three made-up models on small pictures, written by the pipeline's own stage `compare`.

The app never imports the pipeline; that it reads what the pipeline writes today is what these tests are for.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages import compare, params, paths
from stages.datasets import prepared
from stages.datasets.corruptions import CORRUPTIONS, SEVERITIES
from stages.metrics.summary import Answers, summarize
from stages.tracking.explorer import Explorer
from stages.tracking.packaged_model import softmax
from tests.gui.colour_model import COLOURS, SIZE

ROOT = Path(__file__).resolve().parents[2]
SKILL = {
    "vit_scratch": 1.0,
    "vit_transfer": 4.0,
    "mobilenet_transfer": 2.5,
}  # of the right class over the others' noise
COST = {"vit_scratch": (5.0, 246.0), "vit_transfer": (12.7, 520.0), "mobilenet_transfer": (10.2, 406.0)}
COUNTS = {"train": 60, "val": 60, "test": 120}


def write(folder: Path, class_names: list[str], superclass_names: list[str], superclass_of_class: list[int]) -> None:
    """The files of the comparison's run, by their paths in it."""
    rng = np.random.default_rng(0)
    work = folder / "work"
    work.mkdir(parents=True)
    shutil.copy(ROOT / paths.PARAMS, work)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        patch.setattr(compare, "_figures", lambda *_: {})  # the app draws its own; these take a quarter of a minute
        splits = {split: _pictures(rng, count, len(class_names)) for split, count in COUNTS.items()}
        about = {"dropped_from_train_because_in_test": 0, "identical_copies_in_train": 0}
        prepared.write(
            paths.PREPARED,
            paths.SCRATCH / "prepared",
            source="cifar100",
            class_names=class_names,
            superclass_names=superclass_names,
            superclass_of_class=superclass_of_class,
            splits=splits,
            facts=about | {"val_fraction": 0.1, "split_seed": 0, "limit_per_class": None},
        )
        models = list(params.read().models)
        for model in models:
            _write_model(rng, model, {split: labels for split, (_, labels) in splits.items()}, superclass_of_class)
        compare.main()
        _write_explorer(models, prepared.Prepared.open(paths.PREPARED))
    (work / paths.REPORTS).rename(folder / "files")


def _pictures(rng: np.random.Generator, count: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy squares of each class's colour, (count, SIZE, SIZE, 3) uint8, in the order of the classes."""
    labels = np.arange(count, dtype=np.int64) * num_classes // count
    noise = rng.normal(0, 30, (count, SIZE, SIZE, 3))
    return np.clip(COLOURS[labels][:, None, None] + noise, 0, 255).astype(np.uint8), labels


def _write_model(
    rng: np.random.Generator, model: str, labels: dict[str, np.ndarray], superclass_of_class: list[int]
) -> None:
    num_classes, skill, (milliseconds, seconds) = len(superclass_of_class), SKILL[model], COST[model]

    def logits(of: np.ndarray) -> np.ndarray:
        return (rng.normal(0, 1.5, (len(of), num_classes)) + skill * np.eye(num_classes)[of]).astype(np.float32)

    val, test = (Answers(logits(labels[split]), labels[split]) for split in ("val", "test"))
    for folder in (paths.PREDICTIONS, paths.ROBUSTNESS, paths.PROFILES, paths.METRICS, paths.RUNS / model):
        folder.mkdir(parents=True, exist_ok=True)
    np.savez(paths.PREDICTIONS / f"{model}.npz", val_logits=val.logits, test_logits=test.logits)
    corrupted = {
        f"corrupted_{name}": np.stack([logits(labels["test"][::2]) for _ in SEVERITIES]) for name in CORRUPTIONS
    }
    rows = np.arange(0, len(labels["test"]), 2)
    np.savez(paths.ROBUSTNESS / f"{model}.npz", rows=rows, foreign_noise=logits(labels["val"]) / 2, **corrupted)
    _write_json(paths.METRICS / f"{model}.json", summarize(val, test, superclass_of_class))
    hardware = {"cpu": "Some CPU", "cores": 2, "memory_gb": 16.0, "system": "Linux x86_64", "python": "3.11"}
    _write_json(
        paths.PROFILES / f"{model}.json",
        {
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


def _write_explorer(models: list[str], data: prepared.Prepared) -> None:
    folder = paths.REPORTS / "explorer"
    folder.mkdir()
    probabilities = {}
    for model in models:
        temperature = json.loads((paths.METRICS / f"{model}.json").read_text())["calibration"]["temperature"]
        with np.load(paths.PREDICTIONS / f"{model}.npz") as stored:
            probabilities[model] = softmax(stored["test_logits"], temperature)
    about = ("source", "class_names", "superclass_names", "superclass_of_class")
    Explorer(
        dataset={key: getattr(data, key) for key in about},
        data_sha256=data.data_sha256,
        images=data.folder / "test_images.npy",
        labels=data.folder / "test_labels.npy",
        probabilities=probabilities,
    ).write(folder)


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content), encoding="utf-8")
