"""Out-of-distribution images: of none of a data set's classes.

Near: made of the data set's own images, so that colours and textures are the same and what is wrong is the content.
Far: of another kind altogether. Blends, jigsaws and noise are among the synthetic images on which Hendrycks, Mazeika &
Dietterich (2019, https://arxiv.org/abs/1812.04606) tune a detector before a look at the images they report.
"""

import numpy as np
from sklearn.datasets import load_digits

from stages.data.sources import demo

NEAR = ("blends", "jigsaw")
GRID = 4  # tiles along a side of a jigsaw


def ood_images(images: np.ndarray, labels: np.ndarray, source: str, seed: int, half: int) -> dict[str, np.ndarray]:
    """By kind up to N images (n, S, S, 3) uint8 that are OOD for the data set `source`, of which images and labels are.

    blends: the mean of two images of different classes; jigsaw: an image's 16 tiles in another order; noise: uniform,
    independent pixels; digits: scikit-learn's handwritten ones, of which there are 1,797; drawings: those of the demo
    (not where that is the data set itself). half: 0 or 1; no image of one half is in the other, if `images` are not.
    """
    rng, size = np.random.default_rng((seed, half)), images.shape[1]
    kinds = {
        "blends": _blends(images, labels),
        "jigsaw": _jigsaw(images, rng),
        "noise": rng.integers(0, 256, images.shape, np.uint8),
        "digits": _digits(len(images), half),
    }
    if source != "demo":
        kinds["drawings"] = _drawings(len(images), 2 * seed + half)
    return {name: _resized(some, size) for name, some in sorted(kinds.items())}


def _blends(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    order = np.argsort(labels, kind="stable")
    others = np.roll(order, len(order) // 3)  # no two images meet twice
    differ = labels[order] != labels[others]
    one, other = images[order[differ]], images[others[differ]]
    return ((one.astype(np.uint16) + other) // 2).astype(np.uint8)


def _jigsaw(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    count, tile = len(images), images.shape[1] // GRID
    side = GRID * tile
    tiles = images[:, :side, :side].reshape(count, GRID, tile, GRID, tile, 3).swapaxes(2, 3)
    places = rng.permuted(np.tile(np.arange(GRID**2), (count, 1)), axis=1)
    moved = tiles.reshape(count, GRID**2, tile, tile, 3)[np.arange(count)[:, None], places]
    return moved.reshape(count, GRID, GRID, tile, tile, 3).swapaxes(2, 3).reshape(count, side, side, 3)


def _digits(count: int, half: int) -> np.ndarray:
    digits = load_digits().images[half::2] / 16 * 255  # (899 or 898, 8, 8), from 0 to 16
    return np.repeat(digits[:count, ..., None].round().astype(np.uint8), 3, axis=3)


def _drawings(count: int, seed: int) -> np.ndarray:
    per_class = -(-count // len(demo.CLASSES))
    records = demo.generate(1, per_class, seed).test
    rows = np.random.default_rng(seed).permutation(len(records.pixels))[:count]
    return records.images()[rows]


def _resized(images: np.ndarray, size: int) -> np.ndarray:
    """Resized by taking the nearest pixel."""
    nearest = np.arange(size) * images.shape[1] // size
    return images[:, nearest][:, :, nearest]
