"""A comparison of three made-up models on small pictures: the files of its run, as far as the app reads them.

tests/test_comparison_in_app.py holds that they are what the pipeline writes.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SIZE = 8  # pixels
COLOURS = np.array([[220, 30, 30], [30, 200, 30], [30, 60, 220], [250, 250, 250], [5, 5, 5], [230, 220, 40]])
COUNT = 120  # pictures
MODELS = {  # as params.yaml has them: the right class's logit over the noise, ms a picture, seconds of training
    "vit_scratch": (1.0, 5.0, 246.0),
    "vit_transfer": (4.0, 12.7, 520.0),
    "mobilenet_transfer": (2.5, 10.2, 406.0),
}
RANKED = ("vit_transfer", "mobilenet_transfer", "vit_scratch")
REPORT = """# Which classifier to ship on cifar100?

**Ship vit_transfer**

### Is it luck?

![accuracy](figures/accuracy.png)

[All classes](tables/classes.csv), after [a paper](https://arxiv.org/abs/1311.2901).
"""


def write(folder: Path, class_names: list[str], superclass_names: list[str], superclass_of_class: list[int]) -> None:
    """Write them into `folder`, by their paths in the run."""
    rng = np.random.default_rng(4)  # every model takes some rabbit for an apple
    labels = np.arange(COUNT, dtype=np.int64) * len(class_names) // COUNT
    superclasses = np.asarray(superclass_of_class)
    images = np.clip(COLOURS[labels][:, None, None] + rng.normal(0, 30, (COUNT, SIZE, SIZE, 3)), 0, 255)
    for name in ("explorer", "metrics", "tables"):
        (folder / name).mkdir()
    np.save(folder / "explorer" / "images.npy", images.astype(np.uint8))
    np.save(folder / "explorer" / "labels.npy", labels)
    about = {"class_names": class_names, "superclass_names": superclass_names}
    about |= {"superclass_of_class": superclass_of_class, "models": list(MODELS)}
    _write_json(folder / "explorer" / "dataset.json", about)
    tables: dict[str, list[dict[str, Any]]] = {}
    robustness, facts = {}, {}
    for model, (skill, milliseconds, seconds) in MODELS.items():
        logits = rng.normal(0, 1.5, (COUNT, len(class_names))) + skill * np.eye(len(class_names))[labels]
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        stored = probabilities.astype(np.float16)
        np.save(folder / "explorer" / f"probabilities-{model}.npy", stored)
        predicted = stored.argmax(axis=1)
        top1 = float((predicted == labels).mean())
        right = float((superclasses[predicted] == superclasses[labels]).mean())
        measures = {"top1": top1, "top1_low": top1 - 0.08, "top1_high": top1 + 0.08, "superclass_top1": right}
        _write_json(folder / "metrics" / f"{model}.json", {"test": measures | {"ece_calibrated": 0.04}})
        robustness[model] = {"mean": 0.9 * top1}
        cost = {"latency_p50_ms": milliseconds, "training_seconds": seconds, "weights_bytes": 7_290_128}
        facts[model] = {"cost": cost}
        for name, rows in _tables(about, superclasses, labels, predicted, seconds, top1).items():
            tables.setdefault(name, []).extend({"model": model} | row for row in rows)
    for name, rows in tables.items():
        pd.DataFrame(rows).to_csv(folder / "tables" / f"{name}.csv", index=False)
    _write_json(folder / "robustness.json", robustness)
    ranking = [{"place": place, "model": model} for place, model in enumerate(RANKED, start=1)]
    verdict = "**Ship vit_transfer**: it is right on most of 120 test pictures."
    _write_json(folder / "comparison.json", {"verdict": verdict, "ranking": ranking, "facts": facts})
    (folder / "comparison.md").write_text(REPORT, encoding="utf-8")


def _tables(
    about: dict[str, Any],
    superclasses: np.ndarray,
    labels: np.ndarray,
    predicted: np.ndarray,
    seconds: float,
    top1: float,
) -> dict[str, list[dict[str, Any]]]:
    """The rows of each table for one model."""
    names = about["superclass_names"]
    confused = [
        (actual, answer, int(((superclasses[labels] == actual) & (superclasses[predicted] == answer)).sum()))
        for actual in range(len(names))
        for answer in range(len(names))
    ]
    counts = np.bincount(superclasses[labels])
    return {
        "curves": [
            {"epoch": epoch, "seconds": epoch * seconds / 2, "val_loss": 2.1 - epoch / 2, "val_top1": epoch * top1 / 2}
            for epoch in (1, 2)
        ],
        "steps": [
            {"step": step, "seconds": step * seconds / 60, "train_loss": 3 - step / 30, "train_top1": step * top1 / 60}
            for step in (20, 40, 60)
        ],
        "classes": [
            {"class": name, "superclass": names[above], "top1": float((predicted[labels == label] == label).mean())}
            for label, (name, above) in enumerate(zip(about["class_names"], superclasses, strict=True))
        ],
        "superclasses": [
            {"actual": names[actual], "predicted": names[answer], "pictures": count, "share": count / counts[actual]}
            for actual, answer, count in confused
        ],
        "reliability": [
            {"calibration": calibration, "confidence": share, "accuracy": share - off, "pictures": 40}
            for calibration, off in (("before", 0.1), ("after", 0.02))
            for share in (0.4, 0.6, 0.9)
        ],
        "robustness": [
            {"corruption": corruption, "severity": severity, "top1": top1 * (1 - severity / 10)}
            for corruption in ("noise", "blur")
            for severity in range(6)
        ],
    }


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content), encoding="utf-8")
