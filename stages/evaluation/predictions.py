"""What the stages `predict` and `robustness` stored, read and checked."""

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from stages.common import paths
from stages.common.errors import UserError
from stages.data.corruptions import CORRUPTIONS, SEVERITIES
from stages.data.dataset import Prepared
from stages.data.near_duplicates import are_duplicates
from stages.evaluation.robustness import Shifted
from stages.evaluation.summary import Predictions


def by_seed(model: str, prepared: Prepared, split: str) -> dict[int, Predictions]:
    """What the trainings with each seed predict for a split, in the order of seeds; UserError as of `of_split`."""
    file, key, stage = paths.PREDICTIONS / f"{model}.npz", f"{split}_logits", f"predict@{model}"
    stored, (_, labels) = _read(file, ["seed", key], stage, prefix=f"{key}_"), prepared.split(split)
    found = {int(stored["seed"]): stored[key]}
    found |= {int(seed): own for seed, own in _with_prefix(stored, f"{key}_").items()}
    for logits in found.values():
        _check(file, key, logits, (len(labels), len(prepared.class_names)), stage)
    return {seed: Predictions(found[seed], labels) for seed in sorted(found)}


def chosen_seed(model: str) -> int:
    """Whose logits `of_split` reads; UserError as there."""
    return int(_read(paths.PREDICTIONS / f"{model}.npz", ["seed"], f"predict@{model}")["seed"])


def of_split(model: str, prepared: Prepared, split: str) -> Predictions:
    """Logits of the chosen seed, and labels; UserError where they are missing or do not fit the data."""
    _, labels = prepared.split(split)
    file, key = paths.PREDICTIONS / f"{model}.npz", f"{split}_logits"
    logits = _read(file, [key], f"predict@{model}")[key]
    _check(file, key, logits, (len(labels), len(prepared.class_names)), f"predict@{model}")
    return Predictions(logits, labels)


def with_near_duplicate(split: str, prepared: Prepared) -> np.ndarray:
    """Which images of a split have a near duplicate in train, (N,) bool; UserError as of `of_split`."""
    key, (_, labels) = f"{split}_similarity", prepared.split(split)
    similarity = _read(paths.DUPLICATES, [key], "duplicates")[key]
    _check(paths.DUPLICATES, key, similarity, labels.shape, "duplicates")
    return are_duplicates(similarity, prepared.source)


def under_shift(model: str, prepared: Prepared, test: Predictions) -> Shifted:
    """Logits for corrupted test images and out-of-distribution ones; UserError as of `of_split`."""
    file, stage, classes = paths.ROBUSTNESS / f"{model}.npz", f"robustness@{model}", len(prepared.class_names)
    stored = _read(file, ["rows", *(f"corrupted_{name}" for name in CORRUPTIONS)], stage, prefix="ood_")
    rows = stored.pop("rows")  # of the test images
    for key, logits in stored.items():
        shape = (len(SEVERITIES), len(rows)) if key.startswith("corrupted_") else (len(logits),)
        _check(file, key, logits, (*shape, classes), stage)
    corrupted = {name: stored[f"corrupted_{name}"] for name in CORRUPTIONS}
    ood = {split: _with_prefix(stored, f"ood_{split}_") for split in ("val", "test")}
    if not all(ood.values()):
        raise UserError(f"{file} lacks out-of-distribution images: run `dvc repro --force {stage}`")
    return Shifted(Predictions(test.logits[rows], test.labels[rows]), corrupted, ood)


def _with_prefix(stored: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): logits for key, logits in stored.items() if key.startswith(prefix)}


def _read(file: Path, keys: Iterable[str], stage: str, prefix: str | None = None) -> dict[str, np.ndarray]:
    """Arrays of an .npz file: `keys`, and those whose names begin with `prefix`; UserError where a key is missing."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            more = [name for name in stored.files if prefix and name.startswith(prefix)]
            return {key: stored[key] for key in [*keys, *more]}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {file} ({error}): run `dvc repro {stage}`") from error


def _check(file: Path, name: str, logits: np.ndarray, expected: tuple[int, ...], stage: str) -> None:
    if logits.shape != expected or not np.isfinite(logits).all():
        raise UserError(
            f"{file}: the {name} are {logits.shape}, expected {expected} finite numbers: "
            f"run `dvc repro --force {stage}`"
        )
