"""Whether a low probability tells pictures of other things from those a classifier knows.

The score is the highest probability (Hendrycks & Gimpel, 2017, https://arxiv.org/abs/1610.02136), because that is what
a registered model answers; a picture is flagged where it lies below a threshold.
"""

import numpy as np
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

FLAGGED_OF_FAMILIAR = 0.05  # the share of known pictures that is flagged by mistake


def scores(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """The highest probability of each picture: (N,) float64 from logits (N, C)."""
    return softmax(logits.astype(np.float64) / temperature, axis=1).max(axis=1)


def threshold(logits: np.ndarray, temperature: float = 1.0) -> float:
    """The score below which 5 % of known pictures lie; their logits (N, C)."""
    return float(np.quantile(scores(logits, temperature), FLAGGED_OF_FAMILIAR))


def flagged(logits: np.ndarray, threshold: float, temperature: float = 1.0) -> float:
    """Share of pictures that lie below the threshold."""
    return float((scores(logits, temperature) < threshold).mean())


def auroc(familiar: np.ndarray, foreign: np.ndarray, temperature: float = 1.0) -> float:
    """Chance that a known picture scores higher than a foreign one: 0.5 tells nothing, 1 separates them perfectly."""
    known, strange = scores(familiar, temperature), scores(foreign, temperature)
    truth = np.concatenate([np.ones(len(known)), np.zeros(len(strange))])
    return float(roc_auc_score(truth, np.concatenate([known, strange])))
