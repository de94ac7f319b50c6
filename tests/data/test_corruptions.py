"""Pictures made worse: seeded, of the same shape, worse with severity."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from stages.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from stages.data.demo import generate


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return generate(1, 1, seed=0).test.images()[:30]


def distance(images: np.ndarray, others: np.ndarray) -> float:
    return float(np.abs(images.astype(float) - others).mean())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_is_worse_with_severity_and_the_same_for_the_same_seed(images, name):
    before = images.copy()
    worse = [corrupt(images, name, severity, seed=0) for severity in SEVERITIES]
    assert all(altered.shape == images.shape and altered.dtype == np.uint8 for altered in worse)
    distances = [distance(images, altered) for altered in worse]
    assert 0.5 < distances[0] < distances[1] < distances[2] < 90
    assert (corrupt(images, name, 2, seed=0) == worse[1]).all()
    assert (images == before).all(), "the pictures themselves stay as they are"


@pytest.mark.parametrize("name", ["noise", "occlusion", "rotation", "brightness"])
def test_what_is_drawn_follows_the_seed(images, name):
    assert not np.array_equal(corrupt(images, name, 2, seed=0), corrupt(images, name, 2, seed=1))


def test_noise_has_its_deviation():
    grey = np.full((50, 32, 32, 3), 128, np.uint8)
    assert corrupt(grey, "noise", 2, seed=0).std() / 255 == pytest.approx(0.08, rel=0.02)
    assert corrupt(grey, "noise", 2, seed=0).mean() == pytest.approx(128, abs=0.2)


def test_blur_is_scipys_of_each_picture_and_channel(images):
    blurred = corrupt(images, "blur", 2, seed=0)
    assert (blurred[3, :, :, 1] == ndimage.gaussian_filter(images[3, :, :, 1], 0.03 * 32, mode="reflect")).all()


def test_brightness_rises_for_half_of_the_pictures_and_falls_for_the_other():
    grey = np.full((10, 32, 32, 3), 100, np.uint8)
    means = corrupt(grey, "brightness", 1, seed=0).mean((1, 2, 3))
    assert sorted(means.round().tolist()) == [62] * 5 + [138] * 5


def test_contrast_keeps_the_mean_and_shrinks_the_rest(images):
    flat = corrupt(images, "contrast", 2, seed=0)
    assert flat.mean((1, 2, 3)) == pytest.approx(images.mean((1, 2, 3)), abs=0.5)
    assert flat.std((1, 2, 3)) == pytest.approx(0.3 * images.std((1, 2, 3)), abs=0.5)


def test_pixelation_leaves_blocks_of_one_colour(images):
    blocks = corrupt(images, "pixelation", 2, seed=0)
    assert (blocks[:, ::2, ::2] == blocks[:, 1::2, 1::2]).all()
    assert blocks[0, 0, 0] == pytest.approx(images[0, :2, :2].mean((0, 1)), abs=1)


def test_occlusion_hides_one_square(images):
    hidden = (corrupt(images, "occlusion", 1, seed=0) != images).any(axis=3)
    for picture in hidden:
        rows, columns = np.flatnonzero(picture.any(axis=1)), np.flatnonzero(picture.any(axis=0))
        assert np.ptp(rows) < 8
        assert np.ptp(columns) < 8


def test_rotation_is_pillows_in_the_middle(images):
    turned = corrupt(images, "rotation", 2, seed=0)
    middle = slice(10, 22)
    for image, found in zip(images, turned, strict=True):
        both = [Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR) for angle in (20, -20)]
        assert min(distance(np.asarray(one)[middle, middle], found[middle, middle]) for one in both) < 3


def test_pictures_of_another_size_are_altered_too():
    large = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), np.uint8)
    for name in CORRUPTIONS:
        assert corrupt(large, name, 3, seed=0).shape == large.shape
