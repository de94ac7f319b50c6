"""Out-of-distribution images."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from stages.data.ood import ood_images


@pytest.mark.parametrize("size", [32, 50])
def test_kinds_sizes_and_seeds(size):
    kinds, same, other = (ood_images(150, size, "cifar100", seed) for seed in (0, 0, 1))
    assert list(kinds) == ["digits", "drawings", "noise"]
    for name, images in kinds.items():
        assert images.shape == (150, size, size, 3)
        assert images.dtype == np.uint8
        assert np.array_equal(images, same[name])
        assert not np.array_equal(images, other[name])
        assert len({image.tobytes() for image in images}) > 140


def test_the_demos_own_drawings_are_in_distribution():
    assert list(ood_images(10, 32, "demo", seed=0)) == ["digits", "noise"]


def test_digits_are_scikit_learns_and_there_are_no_more_than_those():
    digits = ood_images(5_000, 8, "cifar100", seed=0)["digits"]
    assert len(digits) == 1_797
    known = {(digit / 16 * 255).round().astype(np.uint8).tobytes() for digit in load_digits().images}
    assert all(digit[:, :, 0].tobytes() in known for digit in digits[:50])
