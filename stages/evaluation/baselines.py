"""What takes no network: the trivial classifiers that a model must beat."""

from collections.abc import Mapping

import numpy as np
from PIL import Image
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

SIDE = 16  # pixels: images are shrunk to it, so that large ones cost no more
SHRINKAGE = 0.1  # of the covariance towards a multiple of the identity: neighbouring pixels are nearly the same


Images = tuple[np.ndarray, np.ndarray]  # (N, H, W, 3) uint8, and labels (N,) integer


def majority(train_labels: np.ndarray, splits: Mapping[str, Images]) -> dict[str, np.ndarray]:
    """By split which images (N,) bool are right where all are said to be of the most frequent training class."""
    return {split: labels == np.bincount(train_labels).argmax() for split, (_, labels) in splits.items()}


def linear(train: Images, splits: Mapping[str, Images]) -> dict[str, np.ndarray]:
    """By split which images (N,) bool a linear model on pixels gets right.

    Linear discriminant analysis (Fisher, 1936), in closed form and so without a seed, on images shrunk to 16 px.
    """
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRINKAGE)
    model.fit(_pixels(train[0]), train[1])
    return {split: model.predict(_pixels(images)) == labels for split, (images, labels) in splits.items()}


def _pixels(images: np.ndarray) -> np.ndarray:
    """(N, 3 * SIDE ** 2) float32 between 0 and 1."""
    small = [np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX)) for image in images]
    return np.stack(small).reshape(len(small), -1).astype(np.float32) / 255
