"""What the stages `predict` and `robustness` stored, read and checked."""

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from stages.common import paths
from stages.common.errors import UserError
from stages.data.corruptions import CORRUPTIONS, SEVERITIES
from stages.data.dataset import Prepared
from stages.evaluation.summary import Predictions


def of_split(model: str, prepared: Prepared, split: str) -> Predictions:
    """Logits and labels of `val` or `test`; UserError where they are missing or do not fit the data."""
    _, labels = prepared.split(split)
    stored = _read(paths.PREDICTIONS / f"{model}.npz", [f"{split}_logits"], f"dvc repro predict@{model}")
    logits = stored[f"{split}_logits"]
    _check(paths.PREDICTIONS / f"{model}.npz", f"{split} logits", logits, (len(labels), len(prepared.class_names)))
    return Predictions(logits, labels)


def to_corrupted(model: str, prepared: Prepared) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Which test images were corrupted, rows (n,), and by corruption their logits (severities, n, C)."""
    file = paths.ROBUSTNESS / f"{model}.npz"
    names = {f"corrupted_{corruption}": corruption for corruption in CORRUPTIONS}
    stored = _read(file, ["rows", *names], f"dvc repro robustness@{model}")
    for key in names:
        _check(file, key, stored[key], (len(SEVERITIES), len(stored["rows"]), len(prepared.class_names)))
    return stored["rows"], {corruption: stored[key] for key, corruption in names.items()}


def to_ood(model: str, prepared: Prepared) -> dict[str, np.ndarray]:
    """Logits (n, C) by kind of out-of-distribution images."""
    file = paths.ROBUSTNESS / f"{model}.npz"
    prefix = "ood_"
    stored = _read(file, None, f"dvc repro robustness@{model}")
    found = {key.removeprefix(prefix): value for key, value in stored.items() if key.startswith(prefix)}
    for kind, logits in found.items():
        _check(file, kind, logits, (len(logits), len(prepared.class_names)))
    return found


def _read(file: Path, keys: Iterable[str] | None, command: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz file; keys: None for all."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            return {key: stored[key] for key in (stored.files if keys is None else keys)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {file} ({error}): run `{command}`") from error


def _check(file: Path, name: str, logits: np.ndarray, expected: tuple[int, ...]) -> None:
    if logits.shape != expected or not np.isfinite(logits).all():
        stage = file.parent.name.replace("predictions", "predict")
        raise UserError(
            f"{file}: the {name} are {logits.shape}, expected {expected} finite numbers: "
            f"run `dvc repro --force {stage}@{file.stem}`"
        )
