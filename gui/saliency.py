"""Which parts of a picture an answer rests on: parts are hidden one by one, and what that costs is noted.

Occlusion (Zeiler & Fergus, 2014, https://arxiv.org/abs/1311.2901) asks nothing of a model but its probabilities.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

CELLS = (
    8  # along each side of the heat map; a window hides 2 x 2 of them, so (CELLS + 1)^2 = 81 pictures are classified
)
FAINT = 0.02  # heat, a loss of probability, that is drawn in full where nothing is hotter: less than it is noise
HOT = np.array([255, 106, 0], np.float32)


class Saliency(NamedTuple):
    """heat: (G, G) float32, G up to CELLS, the mean loss of probability of the windows over each cell; negative where
    the answer gains. lowest: the probability left by the window that costs most."""

    heat: np.ndarray
    lowest: float


def occlusion(probabilities: Callable[[np.ndarray], np.ndarray], picture: np.ndarray, class_index: int) -> Saliency:
    """What hiding each part of a picture takes from one class's probability.

    probabilities: pictures (N, S, S, 3) uint8 to (N, C); picture: (S, S, 3) uint8 as the model sees it. What is hidden
    gets the picture's mean colour.
    """
    side = picture.shape[0]
    cells = min(CELLS, side)
    edges = np.linspace(0, side, cells + 1).round().astype(int)
    # Windows reach over the border by one cell, so that each cell lies under four of them.
    windows = [
        (
            slice(edges[max(row - 1, 0)], edges[min(row + 1, cells)]),
            slice(edges[max(col - 1, 0)], edges[min(col + 1, cells)]),
        )
        for row in range(cells + 1)
        for col in range(cells + 1)
    ]
    pictures = np.repeat(picture[np.newaxis], len(windows) + 1, axis=0)
    mean = picture.mean(axis=(0, 1)).round().astype(np.uint8)
    for hidden, (rows, columns) in zip(pictures[1:], windows, strict=True):
        hidden[rows, columns] = mean
    found = probabilities(pictures)[:, class_index]
    losses = (found[0] - found[1:]).reshape(cells + 1, cells + 1)
    heat = (losses[:-1, :-1] + losses[1:, :-1] + losses[:-1, 1:] + losses[1:, 1:]) / 4
    return Saliency(heat.astype(np.float32), float(found[1:].min()))


def overlay(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The picture in grey, what counted for the answer in orange. Both (H, W, 3) uint8; heat: (G, G)."""
    height, width = picture.shape[:2]
    strength = np.clip(heat, 0, None) / max(float(heat.max()), FAINT)
    smooth = Image.fromarray(strength.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    grey = np.asarray(Image.fromarray(picture).convert("L"), np.float32)[..., np.newaxis]
    share = 0.75 * np.clip(np.asarray(smooth), 0, 1)[..., np.newaxis]
    return (grey * (1 - share) + HOT * share).round().astype(np.uint8)
