"""What the app needs to show a comparison image by image: all test images, and every model's probabilities."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = "explorer"  # among the artifacts of the comparison's run


def write(
    folder: Path, images: Path, labels: Path, dataset: Mapping[str, Any], probabilities: Mapping[str, np.ndarray]
) -> dict[str, Path]:
    """Replace `folder` by one with all files; returns them by their path in the run.

    images, labels: files of arrays (N, H, W, 3) uint8 and (N,) int64.
    dataset: source, class_names, superclass_names, superclass_of_class.
    probabilities: of each model, calibrated, (N, C) between 0 and 1.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, file in (("images.npy", images), ("labels.npy", labels)):
        (folder / name).symlink_to(file.resolve())  # copied once, into the store
    content = {**dataset, "models": list(probabilities)}
    (folder / "dataset.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for model, array in probabilities.items():
        np.save(folder / f"probabilities-{model}.npy", _as_float16(array), allow_pickle=False)
    return {f"{FOLDER}/{file.name}": file for file in folder.iterdir()}


def _as_float16(probabilities: np.ndarray) -> np.ndarray:
    """(N, C) float16; of classes that this would make equal the likeliest one stays ahead, by the smallest step."""
    stored = probabilities.astype(np.float16)
    likeliest = probabilities.argmax(axis=1)
    rows = np.flatnonzero(stored.argmax(axis=1) != likeliest)
    stored[rows, likeliest[rows]] = np.nextafter(stored[rows, likeliest[rows]], np.float16(2))
    return stored
