"""Sets of classes that hold the right one with a promised frequency, whatever the classifier.

Adaptive prediction sets (Romano, Sesia & Candes, 2020, https://arxiv.org/abs/2006.02544): classes join in the order of
their probabilities until enough is together, and what is enough is fitted on images apart from training. In place of
the paper's random numbers a class's score leaves out its own probability: an image always gets the same set, and none
is empty. The promise holds on average over images like those, exactly unless naming one class keeps it already.
"""

import math

import numpy as np

from stages.evaluation.calibration import probabilities as calibrated


def scores(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """For each class the sum of the probabilities of those before it: (N, C) float64 from logits (N, C)."""
    probabilities = calibrated(logits, temperature)
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ordered = np.take_along_axis(probabilities, order, axis=1)
    before = np.zeros_like(ordered)
    before[:, 1:] = np.minimum(
        ordered[:, :-1].cumsum(axis=1), 1
    )  # rounding may exceed 1, the threshold for all classes
    result = np.empty_like(before)
    np.put_along_axis(result, order, before, axis=1)
    return result


def threshold(logits: np.ndarray, labels: np.ndarray, coverage: float, temperature: float = 1.0) -> float:
    """The score up to which classes join the set, so that a share `coverage` of sets hold the right class.

    The ceil((N + 1) coverage)-th smallest of the N right classes' scores: the promise then holds for new images, not
    for these only. 1 where N is too small to promise anything: all classes join.
    """
    own = np.sort(scores(logits, temperature)[np.arange(len(labels)), labels])
    rank = math.ceil((len(own) + 1) * coverage)
    return float(own[rank - 1]) if rank <= len(own) else 1.0


def sets(logits: np.ndarray, threshold: float, temperature: float = 1.0) -> np.ndarray:
    """Which classes belong to each image's set: (N, C) bool. The likeliest class always does."""
    return scores(logits, temperature) <= threshold


def coverage_and_size(members: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Share of the sets (N, C) that hold the right class, and the mean number of classes in a set."""
    return float(members[np.arange(len(labels)), labels].mean()), float(members.sum(axis=1).mean())
