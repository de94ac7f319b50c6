"""What a classifier gets wrong, and whether others get it right. Predictions and labels are (N,) integer."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from scipy.special import softmax
from sklearn.metrics import confusion_matrix


def superclass_confusion(predicted: np.ndarray, labels: np.ndarray, superclass_of_class: Sequence[int]) -> np.ndarray:
    """How many pictures of each superclass (rows) were put into each superclass (columns): (S, S) int."""
    table = np.asarray(superclass_of_class)
    return confusion_matrix(table[labels], table[predicted], labels=range(int(table.max()) + 1))


def confused_pairs(predicted: np.ndarray, labels: np.ndarray, num_classes: int, count: int) -> list[dict[str, int]]:
    """The pairs of classes that are taken for each other most often, in either direction.

    Dicts of first, second (classes), first_as_second, second_as_first (pictures); of equals those of lower classes.
    """
    matrix = confusion_matrix(labels, predicted, labels=range(num_classes))
    both = np.triu(matrix + matrix.T, k=1)
    found = []
    for index in np.argsort(-both, axis=None, kind="stable")[:count]:
        first, second = (int(label) for label in divmod(int(index), num_classes))
        if both[first, second] == 0:
            break
        found.append(
            {
                "first": first,
                "second": second,
                "first_as_second": int(matrix[first, second]),
                "second_as_first": int(matrix[second, first]),
            }
        )
    return found


def confident_mistakes(
    logits: np.ndarray, labels: np.ndarray, temperature: float, count: int
) -> list[dict[str, float]]:
    """The wrong answers given with the highest probability: dicts of row, label, predicted, probability."""
    probabilities = softmax(logits.astype(np.float64) / temperature, axis=1)
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    return [
        {
            "row": int(row),
            "label": int(labels[row]),
            "predicted": int(predicted[row]),
            "probability": round(float(confidence[row]), 6),
        }
        for row in wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    ]


def missed_by_all(predicted: Mapping[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
    """Rows that no model names right."""
    return np.flatnonzero(np.all([answers != labels for answers in predicted.values()], axis=0))


def agreement(predicted: Mapping[str, np.ndarray]) -> list[tuple[str, str, float]]:
    """For every two models the share of pictures to which they give the same class, right or wrong."""
    return [(a, b, float((predicted[a] == predicted[b]).mean())) for a, b in combinations(predicted, 2)]


def mean_of_models(logits: Mapping[str, np.ndarray], temperatures: Mapping[str, float]) -> np.ndarray:
    """What all models say together: the mean of their calibrated probabilities, (N, C) float64."""
    return np.mean([softmax(own.astype(np.float64) / temperatures[name], axis=1) for name, own in logits.items()], 0)
