"""Out-of-distribution images: of none of a data set's classes."""

import numpy as np
from sklearn.datasets import load_digits

from stages.data.sources import demo


def ood_images(count: int, image_size: int, source: str, seed: int) -> dict[str, np.ndarray]:
    """By kind up to `count` images (N, image_size, image_size, 3) uint8 that are OOD for the data set `source`.

    noise: uniform, independent pixels; digits: scikit-learn's handwritten ones, of which there are 1,797; drawings:
    those of the demo (not where that is the data set itself).
    """
    rng = np.random.default_rng(seed)
    kinds = {"noise": rng.integers(0, 256, (count, image_size, image_size, 3), np.uint8), "digits": _digits(count, rng)}
    if source != "demo":
        kinds["drawings"] = _drawings(count, seed)
    return {name: _resized(images, image_size) for name, images in sorted(kinds.items())}


def _digits(count: int, rng: np.random.Generator) -> np.ndarray:
    digits = load_digits().images / 16 * 255  # (1797, 8, 8), from 0 to 16
    chosen = digits[rng.permutation(len(digits))[:count]].round().astype(np.uint8)
    return np.repeat(chosen[..., None], 3, axis=3)


def _drawings(count: int, seed: int) -> np.ndarray:
    per_class = -(-count // len(demo.CLASSES))
    records = demo.generate(1, per_class, seed).test
    rows = np.random.default_rng(seed).permutation(len(records.pixels))[:count]
    return records.images()[rows]


def _resized(images: np.ndarray, size: int) -> np.ndarray:
    """Resized by taking the nearest pixel."""
    nearest = np.arange(size) * images.shape[1] // size
    return images[:, nearest][:, :, nearest]
