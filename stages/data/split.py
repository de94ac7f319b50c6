"""From the records of an archive to train, val, gate and test: canonical order, no leaks, a seeded split.

In this order: test and train are each sorted by (class, pixel bytes), so that nothing depends on the order of an
archive; training images that are in test too are dropped; of the rest a share of each class is held out and divided
into val and gate; the limit per class, if any, is applied to each of the four.

val selects: models, seeds, thresholds. gate selects nothing, so that a candidate that val chose, and the champion, can
be compared on it. Train and test do not depend on how the two share.
"""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from stages.common.errors import UserError
from stages.data.sources.cifar_binary import Archive, Records


class Split(NamedTuple):
    """The records of `train`, `val`, `gate` and `test`, each in canonical order, and what was found."""

    parts: dict[str, Records]
    dropped_from_train: int  # images that are in test too
    duplicates_in_train: int  # further copies of an image that train keeps


def split(archive: Archive, val_fraction: float, gate_fraction: float, seed: int, limit: int | None) -> Split:
    """Split its training images into train, val and gate; see the module's text for the order of the steps.

    val_fraction: share of each class that is held out; gate_fraction: share of that for gate; both rounded, at least
    one image. limit: images per class of each part.
    Duplicates (pixel-identical training images) stay in one part: those of one class together in any, those of several
    classes in train. Raises UserError where a class is too small to give each part an image.
    """
    test, pixels_of_test = _in_canonical_order(archive.test)
    train, pixels = _in_canonical_order(archive.train, dropped=set(pixels_of_test))
    classes_of: dict[bytes, set[int]] = {}
    for image, label in zip(pixels, train.classes.tolist(), strict=True):
        classes_of.setdefault(image, set()).add(label)

    rows: dict[str, list[int]] = {"train": [], "val": [], "gate": [], "test": []}
    for label, name in enumerate(archive.class_names):
        # Seeded by class: dropping an image of one class leaves the split of the others as it is.
        rng = np.random.default_rng((seed, label))
        of_class, of_test = (np.flatnonzero(records.classes == label).tolist() for records in (train, test))
        copies: dict[bytes, list[int]] = {}
        for row in of_class:
            copies.setdefault(pixels[row], []).append(row)
        groups, wanted = list(copies.values()), max(1, round(val_fraction * len(of_class)))
        chosen: dict[str, list[int]] = {"train": [], "val": [], "gate": []}
        held_out: list[list[int]] = []
        for index in rng.permutation(len(groups)):
            group = groups[index]
            if len(classes_of[pixels[group[0]]]) == 1 and sum(map(len, held_out)) + len(group) <= wanted:
                held_out.append(group)
            else:
                chosen["train"] += group
        wanted = max(1, round(gate_fraction * sum(map(len, held_out))))
        for group in held_out:
            chosen["gate" if len(chosen["gate"]) + len(group) <= wanted else "val"] += group
        chosen["test"] = [of_test[index] for index in rng.permutation(len(of_test))]
        if not all(chosen.values()):
            raise UserError(
                f"class {name!r} has {len(of_class)} training and {len(of_test)} test images, which give "
                f"{', '.join(f'{part} {len(some)}' for part, some in chosen.items())}; each needs one: change "
                f"data.val_fraction ({val_fraction}) or data.gate_fraction ({gate_fraction})"
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
