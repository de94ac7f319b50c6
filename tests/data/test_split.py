"""Canonical order, duplicates and the validation split."""

import numpy as np
import pytest

from stages.common.errors import UserError
from stages.data.cifar_binary import Records
from stages.data.split import split


def cut(archive, **changes):
    options = {"class_names": archive.class_names, "val_fraction": 0.2, "seed": 0, "limit": None} | changes
    return split(archive.train, archive.test, **options)


def shuffled(records, seed):
    return records.select(np.random.default_rng(seed).permutation(len(records.classes)))


def with_pixels(records, copies):
    """The records with the pixels of some rows replaced by those of others: {row: original}."""
    pixels = records.pixels.copy()
    for row, original in copies.items():
        pixels[row] = original
    return Records(records.superclasses, records.classes, pixels)


def test_every_class_gives_its_share_to_validation(archive):
    rows = cut(archive)
    for label in range(4):
        assert (archive.train.classes[rows.val] == label).sum() == 2
        assert (archive.train.classes[rows.train] == label).sum() == 8
    assert sorted([*rows.train, *rows.val]) == list(range(40))
    assert sorted(rows.test) == list(range(12))


def test_the_order_of_the_archive_does_not_matter(archive):
    rows = cut(archive)
    other = archive._replace(train=shuffled(archive.train, 1), test=shuffled(archive.test, 2))
    other_rows = cut(other)
    for part in ("train", "val", "test"):
        source, other_source = (a.test if part == "test" else a.train for a in (archive, other))
        for one, two in zip(
            source.select(getattr(rows, part)), other_source.select(getattr(other_rows, part)), strict=True
        ):
            np.testing.assert_array_equal(one, two)


def test_rows_are_sorted_by_class_then_pixels(archive):
    rows = cut(archive)
    keys = [(archive.train.classes[row], archive.train.pixels[row].tobytes()) for row in rows.train]
    assert keys == sorted(keys)


def test_the_seed_decides_the_split(archive):
    assert cut(archive).val.tolist() == cut(archive).val.tolist()
    assert cut(archive).val.tolist() != cut(archive, seed=1).val.tolist()


def test_train_images_that_stand_in_test_are_dropped_and_counted(archive):
    train = with_pixels(archive.train, {3: archive.test.pixels[5], 11: archive.test.pixels[0]})
    rows = cut(archive._replace(train=train))
    assert rows.dropped_from_train == 2
    assert not {3, 11} & {*rows.train, *rows.val}
    assert len(rows.train) + len(rows.val) == 38


def test_identical_train_images_stay_on_one_side_and_are_counted(archive):
    same_class = np.flatnonzero(archive.train.classes == 1)[:4]
    train = with_pixels(archive.train, dict.fromkeys(same_class[1:], archive.train.pixels[same_class[0]]))
    for seed in range(30):
        rows = cut(archive._replace(train=train), seed=seed)
        assert rows.identical_in_train == 3
        assert {*same_class} <= {*rows.train} or {*same_class} <= {*rows.val}


def test_identical_images_of_two_classes_stay_on_one_side(archive):
    one, other = np.flatnonzero(archive.train.classes == 0)[0], np.flatnonzero(archive.train.classes == 3)[0]
    train = with_pixels(archive.train, {other: archive.train.pixels[one]})
    for seed in range(30):
        rows = cut(archive._replace(train=train), seed=seed)
        assert {one, other} <= {*rows.train}


def test_the_limit_holds_for_each_part_and_class(archive):
    rows = cut(archive, limit=2, val_fraction=0.3)
    for part, records in ((rows.train, archive.train), (rows.val, archive.train), (rows.test, archive.test)):
        assert np.bincount(records.classes[part]).tolist() == [2, 2, 2, 2]


def test_a_limited_set_is_part_of_the_whole_one(archive):
    whole, limited = cut(archive), cut(archive, limit=2)
    for part in ("train", "val", "test"):
        assert {*getattr(limited, part)} <= {*getattr(whole, part)}


def test_a_class_too_small_to_split_is_named(archive):
    train = archive.train.select(np.flatnonzero((archive.train.classes != 2) | (np.arange(40) < 0)))
    with pytest.raises(UserError, match="class 'cat' has 0 training"):
        cut(archive._replace(train=train))


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_extreme_fractions_leave_no_part_empty_or_say_so(archive, fraction):
    if fraction < 0.5:
        assert np.bincount(archive.train.classes[cut(archive, val_fraction=fraction).val]).tolist() == [1, 1, 1, 1]
    else:
        with pytest.raises(UserError, match="too few to give each"):
            cut(archive, val_fraction=fraction)
