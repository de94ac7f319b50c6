"""A comparison of three made-up models on small images: the files of its run, as far as the app reads them.

tests/test_comparison_in_app.py checks that they are what the pipeline writes.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stages.inference.onnx_model import softmax

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


def write(folder: Path, about: Mapping[str, Any]) -> None:
    """Write them into `folder`, by their paths in the run; about: names the classes, as a version's metadata does."""
    names = {key: about[key] for key in ("class_names", "superclass_names", "superclass_of_class")}
    rng = np.random.default_rng(4)  # every model takes some rabbit for an apple
    classes = len(names["class_names"])
    labels = np.arange(COUNT, dtype=np.int64) * classes // COUNT
    images = np.clip(COLOURS[labels][:, None, None] + rng.normal(0, 30, (COUNT, SIZE, SIZE, 3)), 0, 255)
    for name in ("explorer", "tables"):
        (folder / name).mkdir()
    np.save(folder / "explorer" / "images.npy", images.astype(np.uint8))
    np.save(folder / "explorer" / "labels.npy", labels)
    (folder / "explorer" / "dataset.json").write_text(json.dumps(names | {"models": list(MODELS)}))
    superclasses = np.asarray(names["superclass_names"])[names["superclass_of_class"]]
    tables = defaultdict(list)
    for model, (skill, milliseconds, minutes) in MODELS.items():
        stored = softmax(rng.normal(0, 1.5, (COUNT, classes)) + skill * np.eye(classes)[labels]).astype(np.float16)
        np.save(folder / "explorer" / f"probabilities-{model}.npy", stored)
        predicted = stored.argmax(axis=1)
        found = _tables(float((predicted == labels).mean()))
        found["summary"] |= {"milliseconds": [milliseconds], "minutes": [minutes], "megabytes": [7.290128]}
        sides = {"actual": superclasses[labels], "predicted": superclasses[predicted]}
        confused = pd.DataFrame(sides).value_counts(sort=False).rename("images").reset_index()
        shares = confused["images"] / confused.groupby("actual")["images"].transform("sum")
        found["superclasses"] = confused.assign(share=shares)
        for name, columns in found.items():
            tables[name].append(pd.DataFrame(columns).assign(model=model))
    for name, parts in tables.items():
        pd.concat(parts).to_csv(folder / "tables" / f"{name}.csv", index=False)
    ranking = [{"rank": rank, "model": model} for rank, model in enumerate(RANKED, start=1)]
    verdict = "**Ship vit_transfer**: 95.0% top-1 accuracy on 120 test images."
    (folder / "comparison.json").write_text(json.dumps({"verdict": verdict, "ranking": ranking}))
    (folder / "comparison.md").write_text(REPORT, encoding="utf-8")


def _tables(top1: float) -> dict[str, Any]:
    """The columns of the tables for one model."""
    progress = np.array([1, 2, 3])
    measures = {"loss": 3 - progress / 2, "top1": top1 * progress / 3}
    return {
        "summary": {
            "top1": [top1],
            "low": top1 - 0.08,
            "high": top1 + 0.08,
            "superclass_top1": top1 + 0.01,
            "ece": 0.04,
        },
        "curves": {"epoch": progress, "seconds": 60 * progress} | {f"val_{key}": of for key, of in measures.items()},
        "steps": {"step": 20 * progress, "seconds": 40 * progress} | {f"train_{k}": of for k, of in measures.items()},
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
