"""Canonical order, duplicates, and the images that are held out from training."""

import numpy as np
import pytest

from stages.common.errors import UserError
from stages.data.split import split


def cut(archive, val_fraction=0.2, gate_fraction=0.5, seed=0, limit=None):
    return split(archive, val_fraction, gate_fraction, seed, limit)


def keys(records):
    return [(label, image.tobytes()) for label, image in zip(records.classes, records.pixels, strict=True)]


def with_copies(archive, copies):
    """The archive with the pixels of some training records replaced: {row: pixels}."""
    pixels = archive.train.pixels.copy()
    for row, original in copies.items():
        pixels[row] = original
    return archive._replace(train=archive.train._replace(pixels=pixels))


def test_every_class_gives_its_share_in_canonical_order(archive):
    parts = cut(archive).parts
    assert {name: np.bincount(part.classes).tolist() for name, part in parts.items()} == {
        "train": [8] * 4,
        "val": [1] * 4,
        "gate": [1] * 4,
        "test": [3] * 4,
    }
    assert sorted(key for name in ("train", "val", "gate") for key in keys(parts[name])) == sorted(keys(archive.train))
    assert keys(parts["test"]) == sorted(keys(archive.test))
    for part in parts.values():
        assert keys(part) == sorted(keys(part))


def test_gate_takes_its_share_of_the_held_out_images_and_moves_no_other(archive):
    found = {share: cut(archive, 0.6, share).parts for share in (0.01, 0.25, 0.5, 0.9)}
    sizes = {
        share: [np.bincount(parts[part].classes).tolist() for part in ("val", "gate")] for share, parts in found.items()
    }
    assert sizes == {0.01: [[5] * 4, [1] * 4], 0.25: [[4] * 4, [2] * 4], 0.5: [[3] * 4] * 2, 0.9: [[1] * 4, [5] * 4]}
    first = found[0.01]
    for parts in found.values():
        assert all(keys(parts[part]) == keys(first[part]) for part in ("train", "test"))
        assert sorted(keys(parts["val"]) + keys(parts["gate"])) == sorted(keys(first["val"]) + keys(first["gate"]))
    other = cut(archive, 0.6, seed=1).parts
    assert keys(other["gate"]) != keys(found[0.5]["gate"])


def test_training_images_that_are_in_test_are_dropped_and_counted(archive):
    found = cut(with_copies(archive, {3: archive.test.pixels[5], 11: archive.test.pixels[0]}))
    assert found.dropped_from_train == 2
    left = {image for part in ("train", "val", "gate") for _, image in keys(found.parts[part])}
    assert len(left) == 38
    assert not left & {image for _, image in keys(archive.test)}


def test_duplicates_stay_in_one_split_and_are_counted(archive):
    same_class = np.flatnonzero(archive.train.classes == 1)[:4]
    one, other = np.flatnonzero(archive.train.classes == 0)[0], np.flatnonzero(archive.train.classes == 3)[0]
    pixels = archive.train.pixels
    copies = dict.fromkeys(same_class[1:], pixels[same_class[0]]) | {other: pixels[one]}
    together = set()
    for seed in range(30):
        found = cut(with_copies(archive, copies), seed=seed, val_fraction=0.6, gate_fraction=0.7)
        assert found.duplicates_in_train == 4
        counts = [
            {part: sum(image == pixels[row].tobytes() for _, image in keys(found.parts[part])) for part in found.parts}
            for row in (same_class[0], one)
        ]
        assert sorted(counts[0].values()) == [0, 0, 0, 4]
        assert counts[1]["train"] == 2, "of two classes: never held out"
        together.add(max(counts[0], key=counts[0].get))
    assert together == {"train", "val", "gate"}


def test_the_limit_takes_a_part_of_each_class_of_the_whole(archive):
    whole, limited = (cut(archive, limit=limit, val_fraction=0.5).parts for limit in (None, 2))
    for part, records in limited.items():
        assert np.bincount(records.classes).tolist() == [2] * 4
        assert set(keys(records)) <= set(keys(whole[part]))


def test_a_class_too_small_to_split_is_named(archive):
    assert np.bincount(cut(archive, val_fraction=0.15).parts["val"].classes).tolist() == [1] * 4
    line = (
        r"'ape' has 10 training and 3 .* train {}, val {}, gate {}, test 3; each needs one: .* data.val_fraction \({}\)"
    )
    for fraction, train, val, gate in ((0.999, 0, 5, 5), (0.001, 9, 0, 1)):
        with pytest.raises(UserError, match=line.format(train, val, gate, fraction)):
            cut(archive, val_fraction=fraction)
    without = archive.train.select(np.flatnonzero(archive.train.classes != 2))
    with pytest.raises(UserError, match="class 'cat' has 0 training"):
        cut(archive._replace(train=without))
