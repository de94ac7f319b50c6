"""Whether a low maximum softmax probability tells out-of-distribution (OOD) images from those of the data set.

The score is the maximum softmax probability (Hendrycks & Gimpel, 2017, https://arxiv.org/abs/1610.02136), because that
is what a registered model returns; an image is flagged where it lies below a threshold.
"""

import numpy as np
from sklearn.metrics import roc_auc_score

from stages.evaluation.calibration import probabilities

FALSE_ALARMS = 0.05  # share of in-distribution images that the threshold flags


def scores(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """The maximum softmax probability of each image: (N,) float64 from logits (N, C)."""
    return probabilities(logits, temperature).max(axis=1)


def threshold(logits: np.ndarray, temperature: float = 1.0) -> float:
    """The score below which 5 % of in-distribution images lie; their logits (N, C)."""
    return float(np.quantile(scores(logits, temperature), FALSE_ALARMS))


def flagged(logits: np.ndarray, threshold: float, temperature: float = 1.0) -> float:
    """Share of images that score below the threshold."""
    return float((scores(logits, temperature) < threshold).mean())


def auroc(in_distribution: np.ndarray, ood: np.ndarray, temperature: float = 1.0) -> float:
    """Chance that an in-distribution image scores higher than an OOD one: 0.5 is guessing, 1 separates perfectly."""
    found = np.concatenate([scores(in_distribution, temperature), scores(ood, temperature)])
    return float(roc_auc_score(np.arange(len(found)) < len(in_distribution), found))
