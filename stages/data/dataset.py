"""The prepared data set: what the stage `prepare` wrote, images memory-mapped."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from stages.common.errors import UserError
from stages.common.files import replacing_folder

DATASET = "dataset.json"


@dataclass(frozen=True)
class Prepared:
    """Class names, hierarchy and content hash of a prepared data set, and the way to its arrays.

    superclass_of_class: for each class the index of its superclass.
    image_size: side of the square images in pixels.
    data_sha256: hash of all arrays and names; two sets with the same hash are the same set.
    description: all of dataset.json.
    """

    folder: Path
    source: str
    class_names: list[str]
    superclass_names: list[str]
    superclass_of_class: list[int]
    image_size: int
    data_sha256: str
    description: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read dataset.json; the arrays are opened by `split`."""
        try:
            description = json.loads((folder / DATASET).read_text(encoding="utf-8"))
            keys = ("source", "class_names", "superclass_names", "superclass_of_class", "image_size", "data_sha256")
            return cls(folder=folder, description=description, **{key: description[key] for key in keys})
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{folder} holds no prepared data set ({error}): run `dvc repro prepare`") from error

    def split(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Images (N, H, W, 3) uint8, memory-mapped, and labels (N,) int64 of `train`, `val`, `gate` or `test`."""
        try:
            images = np.load(self.folder / f"{name}_images.npy", mmap_mode="r", allow_pickle=False)
            labels = np.load(self.folder / f"{name}_labels.npy", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {name} arrays in {self.folder} ({error}): run `dvc repro prepare`") from error
        if images.dtype != np.uint8 or labels.dtype != np.int64 or len(images) != len(labels):
            raise UserError(
                f"{self.folder}: the {name} arrays are {images.dtype} {images.shape} and {labels.dtype} "
                f"{labels.shape}, expected uint8 (N, H, W, 3) and int64 (N,): run `dvc repro --force prepare`"
            )
        return images, labels

    def training(self, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """A seeded share of the training images and labels of each class, at least one image, as `split` gives them.

        The images of a smaller share are among those of a larger one; only where fraction is 1 are they memory-mapped.
        """
        images, labels = self.split("train")
        if fraction == 1:
            return images, labels
        rng = np.random.default_rng(seed)
        of_class = [rng.permutation(np.flatnonzero(labels == label)) for label in range(len(self.class_names))]
        rows = np.sort(np.concatenate([rows[: max(1, round(fraction * len(rows)))] for rows in of_class]))
        return images[rows], labels[rows]


def write(
    folder: Path,
    *,
    source: str,
    class_names: list[str],
    superclass_names: list[str],
    superclass_of_class: list[int],
    splits: dict[str, tuple[np.ndarray, np.ndarray]],
    facts: dict[str, Any],
) -> None:
    """Write a prepared data set, completely or not at all.

    splits: for train, val, gate and test images (N, H, W, 3) uint8 and labels (N,) int64.
    facts: what else dataset.json should say. Nothing in it may depend on how the archive was packed.
    """
    names = {
        "class_names": class_names,
        "superclass_names": superclass_names,
        "superclass_of_class": superclass_of_class,
    }
    digest = hashlib.sha256(json.dumps(names).encode())
    with replacing_folder(folder) as unfinished:
        for name, (images, labels) in splits.items():
            for kind, array in (("images", images), ("labels", labels)):
                np.save(unfinished / f"{name}_{kind}.npy", array, allow_pickle=False)
                digest.update(str((name, array.shape, array.dtype)).encode())
                digest.update(np.ascontiguousarray(array).data)
        description = {
            "source": source,
            "image_size": splits["train"][0].shape[1],
            "counts": {name: len(labels) for name, (_, labels) in splits.items()},
            **facts,
            "data_sha256": digest.hexdigest(),
            **names,
        }
        (unfinished / DATASET).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
