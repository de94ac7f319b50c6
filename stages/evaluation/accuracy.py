"""How often a classifier is right. Shares between 0 and 1."""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import f1_score


def top_k(logits: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of images whose class is among the k highest logits; of equal logits the lower class counts first.

    logits: (N, C) float; labels: (N,) integer. Where there are fewer than k classes all of them count.
    """
    own = logits[np.arange(len(labels)), labels][:, None]
    classes = np.arange(logits.shape[1])
    ahead = (logits > own) | ((logits == own) & (classes < labels[:, None]))
    return float((ahead.sum(axis=1) < k).mean())


def superclass_top1(logits: np.ndarray, labels: np.ndarray, superclass_of_class: Sequence[int]) -> float:
    """Share of images whose predicted class lies in the right superclass.

    logits: (N, C); labels: (N,) integer; superclass_of_class: C superclass indices.
    """
    table = np.asarray(superclass_of_class)
    return float((table[logits.argmax(axis=1)] == table[labels]).mean())


def superclass_top1_on_errors(logits: np.ndarray, labels: np.ndarray, superclass_of_class: Sequence[int]) -> float:
    """The same among the images whose predicted class is wrong; 0 where none is."""
    wrong = logits.argmax(axis=1) != labels
    return superclass_top1(logits[wrong], labels[wrong], superclass_of_class) if wrong.any() else 0.0


def macro_f1(logits: np.ndarray, labels: np.ndarray) -> float:
    """F1 score of each class (harmonic mean of precision and recall), averaged over all C classes of logits (N, C)."""
    classes = range(logits.shape[1])
    return float(f1_score(labels, logits.argmax(axis=1), labels=classes, average="macro", zero_division=0))


def class_top1(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Top-1 within each class: (C,) float64, NaN for a class without images."""
    num_classes = logits.shape[1]
    counts = np.bincount(labels, minlength=num_classes).astype(float)
    right = np.bincount(labels[logits.argmax(axis=1) == labels], minlength=num_classes)
    return np.divide(right, counts, out=np.full(num_classes, np.nan), where=counts > 0)
