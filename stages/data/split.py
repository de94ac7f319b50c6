"""From the records of an archive to train, validation and test: canonical order, no leaks, a seeded split.

In this order: test and train are each sorted by (class, pixel bytes), so that nothing depends on the order of an
archive; train pictures that stand in test too are dropped; the rest is split by class; the limit per class, if any,
is applied to each of the three.
"""

from dataclasses import dataclass

import numpy as np

from stages.common.errors import UserError
from stages.data.cifar_binary import Records


@dataclass(frozen=True)
class Split:
    """Rows into the records of train (train, val) and test (test), each sorted canonically, and what was found."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    dropped_from_train: int  # pictures that stand in test too
    identical_in_train: int  # further copies of a picture that train keeps


def split(
    train: Records, test: Records, *, class_names: list[str], val_fraction: float, seed: int, limit: int | None
) -> Split:
    """Split train into train and validation; see the module's text for the order of the steps.

    val_fraction: share of each class, rounded, at least one picture. limit: pictures per class of each part.
    Pixel-identical pictures of train stay on one side: copies within a class together on either, copies across
    classes in train. Raises UserError where a class is too small to split.
    """
    train_bytes, test_bytes = _bytes(train), _bytes(test)
    in_test = set(test_bytes)
    ordered = sorted(range(len(train_bytes)), key=lambda row: (train.classes[row], train_bytes[row]))
    kept = [row for row in ordered if train_bytes[row] not in in_test]
    classes_of: dict[bytes, set[int]] = {}
    for row in kept:
        classes_of.setdefault(train_bytes[row], set()).add(int(train.classes[row]))

    rows: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    test_rows = sorted(range(len(test_bytes)), key=lambda row: (test.classes[row], test_bytes[row]))
    members, test_members = _by_class(kept, train.classes), _by_class(test_rows, test.classes)
    for label, name in enumerate(class_names):
        # Seeded by class: dropping a picture of one class leaves the split of the others as it is.
        rng = np.random.default_rng((seed, label))
        groups: dict[bytes, list[int]] = {}
        for row in members.get(label, []):
            groups.setdefault(train_bytes[row], []).append(row)
        copies = list(groups.values())
        wanted = max(1, round(val_fraction * len(members.get(label, []))))
        parts: dict[str, list[int]] = {"train": [], "val": []}
        for index in rng.permutation(len(copies)):
            group = copies[index]
            alone = len(classes_of[train_bytes[group[0]]]) == 1
            side = "val" if alone and len(parts["val"]) + len(group) <= wanted else "train"
            parts[side] += group
        in_class = test_members.get(label, [])
        parts["test"] = [in_class[index] for index in rng.permutation(len(in_class))]
        for part, chosen in parts.items():
            if not chosen:
                raise UserError(
                    f"class {name!r} has {len(members.get(label, []))} training and {len(parts['test'])} test "
                    f"pictures: too few to give each of train, val and test one (val_fraction = {val_fraction})"
                )
            rows[part] += chosen[:limit]
    position = {row: index for index, row in enumerate(kept)}
    test_position = {row: index for index, row in enumerate(test_rows)}
    return Split(
        train=np.array(sorted(rows["train"], key=position.__getitem__)),
        val=np.array(sorted(rows["val"], key=position.__getitem__)),
        test=np.array(sorted(rows["test"], key=test_position.__getitem__)),
        dropped_from_train=len(train_bytes) - len(kept),
        identical_in_train=len(kept) - len(classes_of),
    )


def _bytes(records: Records) -> list[bytes]:
    return [pixels.tobytes() for pixels in records.pixels]


def _by_class(rows: list[int], classes: np.ndarray) -> dict[int, list[int]]:
    members: dict[int, list[int]] = {}
    for row in rows:
        members.setdefault(int(classes[row]), []).append(row)
    return members
