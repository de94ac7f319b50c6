"""From the records of an archive to train, validation and test: canonical order, no leaks, a seeded split.

In this order: test and train are each sorted by (class, pixel bytes), so that nothing depends on the order of an
archive; training images that are in test too are dropped; the rest is split by class; the limit per class, if any, is
applied to each of the three.
"""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from stages.common.errors import UserError
from stages.data.sources.cifar_binary import Archive, Records


class Split(NamedTuple):
    """The records of `train`, `val` and `test`, each in canonical order, and what was found."""

    parts: dict[str, Records]
    dropped_from_train: int  # images that are in test too
    duplicates_in_train: int  # further copies of an image that train keeps


def split(archive: Archive, val_fraction: float, seed: int, limit: int | None) -> Split:
    """Split its training images into train and validation; see the module's text for the order of the steps.

    val_fraction: share of each class, rounded, at least one image. limit: images per class of each part.
    Duplicates (pixel-identical training images) stay in one part: those of one class together in either, those of
    several classes in train. Raises UserError where a class is too small to split.
    """
    test, pixels_of_test = _in_canonical_order(archive.test)
    train, pixels = _in_canonical_order(archive.train, dropped=set(pixels_of_test))
    classes_of: dict[bytes, set[int]] = {}
    for image, label in zip(pixels, train.classes.tolist(), strict=True):
        classes_of.setdefault(image, set()).add(label)

    rows: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for label, name in enumerate(archive.class_names):
        # Seeded by class: dropping an image of one class leaves the split of the others as it is.
        rng = np.random.default_rng((seed, label))
        of_class, of_test = (np.flatnonzero(records.classes == label).tolist() for records in (train, test))
        copies: dict[bytes, list[int]] = {}
        for row in of_class:
            copies.setdefault(pixels[row], []).append(row)
        groups, wanted = list(copies.values()), max(1, round(val_fraction * len(of_class)))
        chosen: dict[str, list[int]] = {"train": [], "val": []}
        for index in rng.permutation(len(groups)):
            group = groups[index]
            is_free = len(classes_of[pixels[group[0]]]) == 1 and len(chosen["val"]) + len(group) <= wanted
            chosen["val" if is_free else "train"] += group
        chosen["test"] = [of_test[index] for index in rng.permutation(len(of_test))]
        if not all(chosen.values()):
            raise UserError(
                f"class {name!r} has {len(of_class)} training and {len(of_test)} test images: too few to give each of "
                f"train, val and test one (val_fraction = {val_fraction})"
            )
        for part, some in chosen.items():
            rows[part] += some[:limit]
    parts = {part: (test if part == "test" else train).select(np.sort(some)) for part, some in rows.items()}
    return Split(parts, len(archive.train.classes) - len(pixels), len(pixels) - len(classes_of))


def _in_canonical_order(records: Records, dropped: Collection[bytes] = ()) -> tuple[Records, list[bytes]]:
    """The records sorted by (class, pixel bytes) but for those whose pixels are `dropped`, and their pixels' bytes."""
    pixels = [image.tobytes() for image in records.pixels]
    order = sorted(range(len(pixels)), key=lambda row: (records.classes[row], pixels[row]))
    rows = [row for row in order if pixels[row] not in dropped]
    return records.select(np.array(rows, np.int64)), [pixels[row] for row in rows]
