"""Corruptions: seeded, of the same shape, stronger with severity, each what its name says."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from stages.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from stages.data.sources.demo import generate


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return generate(1, 1, seed=0).test.images()[:30]


def distance(images: np.ndarray, others: np.ndarray) -> float:
    return float(np.abs(images.astype(float) - others).mean())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_is_stronger_with_severity_and_follows_the_seed(images, name):
    before = images.copy()
    corrupted = [corrupt(images, name, severity, seed=0) for severity in SEVERITIES]
    assert all(some.shape == images.shape and some.dtype == np.uint8 for some in corrupted)
    distances = [distance(images, some) for some in corrupted]
    assert 0.5 < distances[0] < distances[1] < distances[2] < 90
    assert np.array_equal(corrupt(images, name, 2, seed=0), corrupted[1])
    is_random = name in ("noise", "occlusion", "rotation", "brightness")
    assert np.array_equal(corrupt(images, name, 2, seed=1), corrupted[1]) != is_random
    assert (images == before).all(), "the images themselves stay as they are"
    large = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), np.uint8)
    assert corrupt(large, name, 3, seed=0).shape == large.shape


def test_noise_and_brightness_have_their_strength():
    grey = np.full((50, 32, 32, 3), 100, np.uint8)
    noisy = corrupt(grey, "noise", 2, seed=0)
    assert noisy.std() / 255 == pytest.approx(0.08, rel=0.02)
    assert noisy.mean() == pytest.approx(100, abs=0.2)
    means = corrupt(grey, "brightness", 1, seed=0).mean((1, 2, 3))
    assert sorted(means.round().tolist()) == [62] * 25 + [138] * 25


def test_blur_is_scipys_of_each_image_and_channel(images):
    blurred = corrupt(images, "blur", 2, seed=0)
    assert (blurred[3, :, :, 1] == ndimage.gaussian_filter(images[3, :, :, 1], 0.03 * 32, mode="reflect")).all()


def test_contrast_keeps_the_mean_and_shrinks_the_rest(images):
    flat = corrupt(images, "contrast", 2, seed=0)
    assert flat.mean((1, 2, 3)) == pytest.approx(images.mean((1, 2, 3)), abs=0.5)
    assert flat.std((1, 2, 3)) == pytest.approx(0.3 * images.std((1, 2, 3)), abs=0.5)


def test_pixelation_leaves_blocks_of_one_colour(images):
    blocks = corrupt(images, "pixelation", 2, seed=0)
    assert (blocks[:, ::2, ::2] == blocks[:, 1::2, 1::2]).all()
    assert blocks[0, 0, 0] == pytest.approx(images[0, :2, :2].mean((0, 1)), abs=1)


def test_occlusion_hides_one_square(images):
    for hidden in (corrupt(images, "occlusion", 1, seed=0) != images).any(axis=3):
        assert all(np.ptp(np.flatnonzero(hidden.any(axis))) < 8 for axis in (0, 1))


def test_rotation_is_pillows_in_the_middle(images):
    turned = corrupt(images, "rotation", 2, seed=0)
    middle = slice(10, 22)
    for image, found in zip(images, turned, strict=True):
        both = [Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR) for angle in (20, -20)]
        assert min(distance(np.asarray(one)[middle, middle], found[middle, middle]) for one in both) < 3
