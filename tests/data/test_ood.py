"""Out-of-distribution images."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from stages.data.ood import GRID, NEAR, ood_images


def made(count=150, size=32, source="cifar100", seed=0, half=0):
    rng = np.random.default_rng((seed, half))
    images = rng.integers(0, 256, (count, size, size, 3), np.uint8)
    return images, ood_images(images, np.arange(count) % 10, source, seed, half)


@pytest.mark.parametrize("size", [32, 50])
def test_kinds_sizes_and_that_halves_share_no_image(size):
    (images, kinds), (_, same), (_, other) = (made(size=size, half=half) for half in (0, 0, 1))
    assert list(kinds) == ["blends", "digits", "drawings", "jigsaw", "noise"]
    assert set(NEAR) < set(kinds)
    for name, some in kinds.items():
        assert some.shape == (150, size, size, 3)
        assert some.dtype == np.uint8
        assert np.array_equal(some, same[name])
        found = {image.tobytes() for image in some}
        assert len(found) > 140
        assert not found & {image.tobytes() for image in other[name]}
        assert not found & {image.tobytes() for image in images}


def test_a_blend_is_the_mean_of_two_classes_images():
    images = np.array([np.full((8, 8, 3), value, np.uint8) for value in (0, 1, 100, 255)])
    blends = ood_images(images, np.array([0, 1, 2, 3]), "demo", 0, 0)["blends"]
    assert sorted(blends[:, 0, 0, 0].tolist()) == [0, 50, 127, 177]  # of each with the one before
    assert len(ood_images(images, np.array([0, 0, 0, 1]), "demo", 0, 0)["blends"]) == 2, "not of one class"


def test_a_jigsaw_has_the_tiles_of_its_image_elsewhere():
    def tiles(image):
        places = range(0, 8, 8 // GRID)
        return {image[y : y + 2, x : x + 2].tobytes() for y in places for x in places}

    images, kinds = made(count=20, size=8)
    for image, moved in zip(images, kinds["jigsaw"], strict=True):
        assert tiles(image) == tiles(moved)
        assert not np.array_equal(image, moved)


def test_the_demos_own_drawings_are_in_distribution():
    assert list(made(10, source="demo")[1]) == ["blends", "digits", "jigsaw", "noise"]


def test_digits_are_scikit_learns_and_there_are_no_more_than_those():
    halves = [made(2_000, 8, half=half)[1]["digits"] for half in (0, 1)]
    assert [len(half) for half in halves] == [899, 898]
    known = {(digit / 16 * 255).round().astype(np.uint8).tobytes() for digit in load_digits().images}
    assert {digit[:, :, 0].tobytes() for half in halves for digit in half} == known
