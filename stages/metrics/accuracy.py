"""How often a classifier is right, and how sure it was. Shares between 0 and 1."""

from collections.abc import Sequence

import numpy as np
from scipy.special import log_softmax
from sklearn.metrics import f1_score


def top_k(logits: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of examples whose class is among the k highest logits; of equal logits the lower class counts first.

    logits: (N, C) float; labels: (N,) integer. Where there are fewer than k classes all of them count.
    """
    own = logits[np.arange(len(labels)), labels][:, None]
    classes = np.arange(logits.shape[1])
    ahead = (logits > own) | ((logits == own) & (classes < labels[:, None]))
    return float((ahead.sum(axis=1) < k).mean())


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log p(class), in nats, p the softmax of the logits (N, C); labels: (N,) integer."""
    log_probabilities = log_softmax(logits.astype(np.float64), axis=1)
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


def superclass_top1(logits: np.ndarray, labels: np.ndarray, superclass_of_class: Sequence[int]) -> float:
    """Share of examples whose predicted class lies in the right superclass.

    logits: (N, C); labels: (N,) integer; superclass_of_class: C superclass indices.
    """
    table = np.asarray(superclass_of_class)
    return float((table[logits.argmax(axis=1)] == table[labels]).mean())


def macro_f1(logits: np.ndarray, labels: np.ndarray) -> float:
    """F1 score of each class (harmonic mean of precision and recall), averaged over all C classes of logits (N, C)."""
    classes = range(logits.shape[1])
    return float(f1_score(labels, logits.argmax(axis=1), labels=classes, average="macro", zero_division=0))


def summary(logits: np.ndarray, labels: np.ndarray, superclass_of_class: Sequence[int]) -> dict[str, float]:
    """All of the above on one set of pictures, rounded to 6 decimals."""
    measures = {
        "top1": top_k(logits, labels, 1),
        "top5": top_k(logits, labels, 5),
        "nll": negative_log_likelihood(logits, labels),
        "superclass_top1": superclass_top1(logits, labels, superclass_of_class),
        "macro_f1": macro_f1(logits, labels),
    }
    return {name: round(value, 6) for name, value in measures.items()}
