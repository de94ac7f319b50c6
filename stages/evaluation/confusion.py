"""Which classes a model confuses, and its most confident mistakes. Predictions and labels are (N,) integer."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from stages.evaluation.calibration import probabilities as calibrated

Mistakes = list[dict[Hashable, Any]]  # row, label, predicted, probability


def superclass_confusion(predicted: np.ndarray, labels: np.ndarray, superclass_of_class: Sequence[int]) -> np.ndarray:
    """Images by true superclass (rows) and predicted superclass (columns): (S, S) int."""
    table = np.asarray(superclass_of_class)
    return confusion_matrix(table[labels], table[predicted], labels=range(int(table.max()) + 1))


def confused_pairs(predicted: np.ndarray, labels: np.ndarray, num_classes: int, count: int) -> list[dict[str, int]]:
    """The `count` pairs of classes confused most often, both directions summed; ties: lower class indices first.

    Dicts of first, second (class indices), first_as_second, second_as_first (images).
    """
    matrix = confusion_matrix(labels, predicted, labels=range(num_classes))
    both = np.triu(matrix + matrix.T, k=1)
    worst = np.argsort(-both, axis=None, kind="stable")[:count]
    return [
        {
            "first": int(first),
            "second": int(second),
            "first_as_second": int(matrix[first, second]),
            "second_as_first": int(matrix[second, first]),
        }
        for first, second in zip(*np.unravel_index(worst, both.shape), strict=True)
        if both[first, second]
    ]


def confident_mistakes(logits: np.ndarray, labels: np.ndarray, temperature: float, count: int) -> Mistakes:
    """The `count` wrong predictions of highest probability, as dicts of row, label, predicted, probability.

    logits: (N, C); the probability is the softmax at this temperature.
    """
    probabilities = calibrated(logits, temperature)
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    return surest(wrong, labels[wrong], predicted[wrong], confidence[wrong], count)


def surest(
    rows: np.ndarray, labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, count: int
) -> Mistakes:
    """The `count` images of highest probability as dicts of row, label, predicted, probability; arrays (n,)."""
    table = pd.DataFrame({"row": rows, "label": labels, "predicted": predicted, "probability": probabilities})
    return table.sort_values("probability", ascending=False, kind="stable").head(count).to_dict("records")
