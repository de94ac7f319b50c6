"""A comparison of three made-up models on small images: the files of its run, as far as the app reads them.

tests/test_comparison_in_app.py checks that they are what the pipeline writes.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SIZE = 8  # pixels
COLOURS = np.array([[220, 30, 30], [30, 200, 30], [30, 60, 220], [250, 250, 250], [5, 5, 5], [230, 220, 40]])
COUNT = 120  # images
MODELS = {  # as params.yaml has them: the right class's logit over the noise, ms per image, minutes of training
    "vit_scratch": (1.0, 5.0, 4.0),
    "vit_transfer": (4.0, 12.7, 9.0),
    "mobilenet_transfer": (2.5, 10.2, 7.0),
}
RANKED = ("vit_transfer", "mobilenet_transfer", "vit_scratch")
REPORT = """# Model comparison on cifar100

**Ship vit_transfer**

### Statistical significance

![accuracy](plots/accuracy.png)

[All classes](tables/classes.csv), after [a paper](https://arxiv.org/abs/1311.2901).
"""


def write(folder: Path, class_names: list[str], superclass_names: list[str], superclass_of_class: list[int]) -> None:
    """Write them into `folder`, by their paths in the run."""
    rng = np.random.default_rng(4)  # every model takes some rabbit for an apple
    labels = np.arange(COUNT, dtype=np.int64) * len(class_names) // COUNT
    images = np.clip(COLOURS[labels][:, None, None] + rng.normal(0, 30, (COUNT, SIZE, SIZE, 3)), 0, 255)
    for name in ("explorer", "tables"):
        (folder / name).mkdir()
    np.save(folder / "explorer" / "images.npy", images.astype(np.uint8))
    np.save(folder / "explorer" / "labels.npy", labels)
    names = {"class_names": class_names, "superclass_names": superclass_names}
    _json(
        folder / "explorer" / "dataset.json",
        names | {"superclass_of_class": superclass_of_class, "models": list(MODELS)},
    )
    superclasses = np.asarray(superclass_names)[superclass_of_class]
    tables: dict[str, list[pd.DataFrame]] = {}
    for model, (skill, milliseconds, minutes) in MODELS.items():
        logits = rng.normal(0, 1.5, (COUNT, len(class_names))) + skill * np.eye(len(class_names))[labels]
        stored = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float16)
        np.save(folder / "explorer" / f"probabilities-{model}.npy", stored)
        found = _tables(np.asarray(class_names), superclasses, labels, stored.argmax(axis=1))
        found["summary"] |= {"milliseconds": milliseconds, "minutes": minutes, "megabytes": 7.290128}
        for name, columns in found.items():
            tables.setdefault(name, []).append(
                pd.DataFrame({"model": model} | columns, index=None if name != "summary" else [0])
            )
    for name, parts in tables.items():
        pd.concat(parts).to_csv(folder / "tables" / f"{name}.csv", index=False)
    ranking = [{"rank": rank, "model": model} for rank, model in enumerate(RANKED, start=1)]
    verdict = "**Ship vit_transfer**: 95.0% top-1 accuracy on 120 test images."
    _json(folder / "comparison.json", {"verdict": verdict, "ranking": ranking})
    (folder / "comparison.md").write_text(REPORT, encoding="utf-8")


def _tables(names: np.ndarray, superclasses: np.ndarray, labels: np.ndarray, predicted: np.ndarray) -> dict[str, dict]:
    """The columns of each table for one model."""
    top1, order = float((predicted == labels).mean()), list(dict.fromkeys(superclasses))
    counts = pd.crosstab(superclasses[labels], superclasses[predicted]).reindex(
        index=order, columns=order, fill_value=0
    )
    confused = counts.rename_axis(index="actual", columns="predicted").stack().rename("images").reset_index()
    confused["share"] = confused["images"] / confused.groupby("actual")["images"].transform("sum")
    progress = np.array([1, 2, 3])
    return {
        "summary": {"top1": top1, "low": top1 - 0.08, "high": top1 + 0.08, "superclass": top1 + 0.01, "ece": 0.04},
        "curves": {
            "epoch": progress[:2],
            "seconds": 60 * progress[:2],
            "val_loss": 2 - progress[:2] / 2,
            "val_top1": top1 * progress[:2] / 2,
        },
        "steps": {
            "step": 20 * progress,
            "seconds": 40 * progress,
            "train_loss": 3 - progress / 2,
            "train_top1": top1 * progress / 3,
        },
        "classes": {
            "class": names,
            "superclass": superclasses,
            "top1": [float((predicted[labels == label] == label).mean()) for label in range(len(names))],
        },
        "superclasses": confused.to_dict("list"),
        "reliability": {
            "calibration": ["before", "before", "after", "after"],
            "confidence": [0.4, 0.9, 0.4, 0.9],
            "accuracy": [0.3, 0.8, 0.38, 0.88],
            "images": 60,
        },
        "robustness": {
            "corruption": ["noise"] * 4 + ["blur"] * 4,
            "severity": [*range(4)] * 2,
            "top1": top1 * np.linspace(1, 0.5, 8),
        },
    }


def _json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content), encoding="utf-8")
