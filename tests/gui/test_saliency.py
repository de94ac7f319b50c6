"""Heat maps of models whose reasons are known."""

import numpy as np
import pytest

from gui import saliency

rng = np.random.default_rng(0)
IMAGE = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
IMAGE[:8, 24:] = 255  # what the model below looks at


def looks_at_one_corner(images: np.ndarray) -> np.ndarray:
    """Two classes; the second's probability is the brightness of the upper right corner."""
    bright = images[:, :8, 24:].mean(axis=(1, 2, 3)) / 255
    return np.stack([1 - bright, bright], axis=1).astype(np.float32)


def test_heat_lies_where_the_model_looks_and_nowhere_else() -> None:
    heat, lowest = saliency.occlusion(looks_at_one_corner, IMAGE, class_index=1)
    assert heat.shape == (8, 8)
    assert heat.dtype == np.float32
    assert heat[:2, 6:].min() > 0.02
    assert np.unravel_index(heat.argmax(), heat.shape) in [(0, 7), (1, 6), (0, 6), (1, 7)]
    elsewhere = heat.copy()
    elsewhere[:3, 5:] = 0  # windows that reach into the corner cover its neighbours, too
    assert np.abs(elsewhere).max() == 0
    hidden = IMAGE.copy()
    hidden[:8, 24:] = IMAGE.mean(axis=(0, 1)).round()
    assert lowest == pytest.approx(looks_at_one_corner(hidden[np.newaxis])[0, 1])
    against, _ = saliency.occlusion(looks_at_one_corner, IMAGE, class_index=0)
    assert against == pytest.approx(-heat, abs=1e-6)


@pytest.mark.parametrize("side", [1, 2, 5, 8, 33])
def test_images_of_any_size_get_a_map(side: int) -> None:
    image = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    heat, _ = saliency.occlusion(lambda images: images.mean(axis=(1, 2, 3))[:, np.newaxis] / 255, image, 0)
    assert heat.shape == (min(side, 8),) * 2
    assert saliency.overlay(image, heat).shape == image.shape


def test_the_overlay_is_orange_where_the_heat_is_grey_elsewhere_and_faint_where_it_is_noise() -> None:
    heat = np.zeros((8, 8), np.float32)
    heat[0, 7] = 0.5
    heat[7, 0] = -0.5
    drawn = saliency.overlay(IMAGE, heat).astype(int)
    assert drawn[0, 31, 0] - drawn[0, 31, 2] > 150
    assert np.ptp(drawn[16:], axis=2).max() == 0
    noise = saliency.overlay(IMAGE, np.full((8, 8), 0.001, np.float32)).astype(int)
    assert 0 < np.ptp(noise, axis=2).max() < 20
