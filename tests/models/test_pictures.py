"""Pictures of any size brought to the trained size."""

import numpy as np
import pytest

from stages.models.images import shrink


def test_shrinking_averages_areas():
    image = np.zeros((1, 4, 4, 3), np.uint8)
    image[0, :2, :2] = [[[40], [80]], [[120], [160]]]
    small = shrink(image, 2)
    assert small.shape == (1, 2, 2, 3)
    assert small[0, 0, 0].tolist() == [100, 100, 100]
    assert small[0, 1, 1].tolist() == [0, 0, 0]


def test_pictures_of_the_right_size_pass_untouched():
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    assert shrink(images, 32) is images


@pytest.mark.parametrize("shape", [(2, 7, 100, 3), (1, 1, 1, 3), (1, 500, 20, 3), (0, 9, 9, 3)])
def test_any_size_becomes_the_trained_size(shape):
    assert shrink(np.zeros(shape, np.uint8), 32).shape == (shape[0], 32, 32, 3)


@pytest.mark.parametrize(
    "images", [np.zeros((2, 32, 32), np.uint8), np.zeros((1, 32, 32, 4), np.uint8), np.zeros((1, 32, 32, 3))]
)
def test_arrays_that_are_no_pictures_are_refused(images):
    with pytest.raises(ValueError, match="uint8"):
        shrink(images, 32)
