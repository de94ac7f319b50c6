"""The generated pictures."""

import numpy as np

from stages.datasets import demo


def test_the_same_seed_draws_the_same_pictures():
    one, two, other = (demo.generate(2, 1, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.train.pixels, two.train.pixels)
    np.testing.assert_array_equal(one.train.classes, two.train.classes)
    assert not np.array_equal(one.train.pixels, other.train.pixels)


def test_there_are_100_classes_in_20_superclasses_of_5():
    archive = demo.generate(3, 1, 0)
    assert len(archive.class_names) == len(set(archive.class_names)) == 100
    assert len(archive.superclass_names) == 20
    assert np.bincount(archive.train.classes).tolist() == [3] * 100
    assert np.bincount(archive.test.superclasses).tolist() == [5] * 20
    for name, index in zip(archive.class_names, range(100), strict=True):
        assert name.split()[1] == archive.superclass_names[index // 5]


def test_train_and_test_share_no_picture():
    archive = demo.generate(5, 5, 0)
    train = {pixels.tobytes() for pixels in archive.train.pixels}
    assert len(train) == 500
    assert not train & {pixels.tobytes() for pixels in archive.test.pixels}


def test_mean_colour_says_nothing_about_the_class():
    archive = demo.generate(40, 1, 0)
    colours = archive.train.images().mean((1, 2))
    by_class = np.stack([colours[archive.train.classes == label].mean(0) for label in range(100)])
    # Means of 40 pictures each scatter as if drawn from one and the same population.
    assert (by_class.std(0) < 1.35 * colours.std(0) / np.sqrt(40)).all()


def test_no_mirror_image_of_a_shape_is_another_shape():
    row, column = np.mgrid[-1:1:41j, -1:1:41j]
    masks = {name: shape(column, row) > 0 for name, shape in demo.SHAPES.items()}
    for name, mask in masks.items():
        assert 0.1 < mask.mean() < 0.9, name
        for other, other_mask in masks.items():
            overlap = (mask[:, ::-1] & other_mask).sum() / (mask[:, ::-1] | other_mask).sum()
            assert (overlap > 0.93) == (name == other), (name, other, overlap)
