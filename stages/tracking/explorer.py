"""What the app needs to show a comparison image by image: all test images, and every model's probabilities."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = "explorer"  # among the artifacts of the comparison's run


def write(
    folder: Path, images: Path, labels: Path, dataset: Mapping[str, Any], probabilities: Mapping[str, np.ndarray]
) -> dict[str, Path]:
    """Write dataset.json and each model's probabilities into `folder`; returns all files, by their path in the run.

    images, labels: files of arrays (N, H, W, 3) uint8 and (N,) int64.
    dataset: source, class_names, superclass_names, superclass_of_class.
    probabilities: of each model, calibrated, (N, C) between 0 and 1.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {"images.npy": images, "labels.npy": labels, "dataset.json": folder / "dataset.json"}
    content = {**dataset, "models": list(probabilities)}
    files["dataset.json"].write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for model, array in probabilities.items():
        name = f"probabilities-{model}.npy"
        files[name] = folder / name
        np.save(files[name], _as_float16(array), allow_pickle=False)
    return {f"{FOLDER}/{name}": file for name, file in files.items()}


def _as_float16(probabilities: np.ndarray) -> np.ndarray:
    """(N, C) float16; of classes that this would make equal the likeliest one stays ahead, by the smallest step."""
    stored = probabilities.astype(np.float16)
    likeliest = probabilities.argmax(axis=1)
    rows = np.flatnonzero(stored.argmax(axis=1) != likeliest)
    stored[rows, likeliest[rows]] = np.nextafter(stored[rows, likeliest[rows]], np.float16(2))
    return stored
