"""Which parts of an image an answer rests on: parts are hidden one by one, and the loss of probability is measured.

Occlusion (Zeiler & Fergus, 2014, https://arxiv.org/abs/1311.2901) needs nothing of a model but its probabilities.
"""

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import numpy as np
from PIL import Image

CELLS = 8  # along each side of the heat map; a window hides 2 x 2 of them: (CELLS + 1)^2 = 81 windows
FAINT = 0.02  # a loss of probability: heat is scaled by at least this, or noise would glow
HOT = np.array([255, 106, 0], np.float32)


class Saliency(NamedTuple):
    """heat: (G, G) float32, G up to CELLS, the mean loss of probability of the windows over each cell; negative where
    the probability rises. lowest: the probability left by the window that costs most."""

    heat: np.ndarray
    lowest: float


def occlusion(probabilities: Callable[[np.ndarray], np.ndarray], image: np.ndarray, class_index: int) -> Saliency:
    """How much of one class's probability is lost where each part of an image is hidden by the image's mean colour.

    probabilities: images (N, S, S, 3) uint8 to (N, C); image: (S, S, 3) uint8 as the model sees it.
    """
    cells = min(CELLS, len(image))
    # Windows reach over the border by one cell, so that each cell lies under four of them.
    edges = np.pad(np.linspace(0, len(image), cells + 1).round().astype(int), 1, mode="edge")
    spans = [slice(start, end) for start, end in zip(edges, edges[2:], strict=False)]
    hidden = np.repeat(image[np.newaxis], len(spans) ** 2 + 1, axis=0)
    for each, window in zip(hidden[1:], product(spans, repeat=2), strict=True):
        each[window] = image.mean(axis=(0, 1)).round()
    found = probabilities(hidden)[:, class_index]
    losses = (found[0] - found[1:]).reshape(len(spans), len(spans))
    heat = np.lib.stride_tricks.sliding_window_view(losses, (2, 2)).mean(axis=(2, 3))
    return Saliency(heat.astype(np.float32), float(found[1:].min()))


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The image in grey, hot parts in orange. Both (H, W, 3) uint8; heat: (G, G)."""
    height, width = image.shape[:2]
    strength = np.clip(heat, 0, None) / max(float(heat.max()), FAINT)
    smooth = Image.fromarray(strength.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    grey = np.asarray(Image.fromarray(image).convert("L"), np.float32)[..., np.newaxis]
    share = 0.75 * np.clip(np.asarray(smooth), 0, 1)[..., np.newaxis]
    return (grey * (1 - share) + HOT * share).round().astype(np.uint8)
