"""Whether probabilities mean what they say: of pictures given 70 %, seven in ten should be right.

Probabilities are the softmax of logits (N, C) divided by a temperature; labels are (N,) integer.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

BINS = 15
TEMPERATURES = (0.05, 20.0)  # where the best one is looked for


@dataclass(frozen=True)
class Reliability:
    """Bins of equal numbers of examples by confidence, the highest probability; each array (bins,), lowest first.

    confidence: its mean in the bin. accuracy: share of right answers in the bin. count: examples in the bin.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray

    @property
    def expected_calibration_error(self) -> float:
        """Mean distance of accuracy and confidence, between 0 and 1, each bin weighted by its examples."""
        return float(np.average(np.abs(self.confidence - self.accuracy), weights=self.count))


def reliability(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0, bins: int = BINS) -> Reliability:
    """How often answers of a confidence are right (Guo et al., 2017, https://arxiv.org/abs/1706.04599).

    Bins of equal mass rather than equal width (Nguyen & O'Connor, 2015, https://arxiv.org/abs/1508.05154): none is
    nearly empty. Fewer examples than bins give a bin each.
    """
    probabilities = softmax(logits.astype(np.float64) / temperature, axis=1)
    confidences, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    order = np.argsort(confidences, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return Reliability(
        np.array([confidences[part].mean() for part in parts]),
        np.array([right[part].mean() for part in parts]),
        np.array([len(part) for part in parts]),
    )


def expected_calibration_error(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Expected calibration error over 15 bins of equal mass; see Reliability."""
    return reliability(logits, labels, temperature).expected_calibration_error


def brier_score(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean squared distance of the probabilities from the truth, summed over classes: 0 to 2 (Brier, 1950)."""
    errors = softmax(logits.astype(np.float64) / temperature, axis=1)
    errors[np.arange(len(labels)), labels] -= 1
    return float((errors**2).sum(axis=1).mean())


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean of -log p(class), in nats."""
    log_probabilities = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature, between 0.05 and 20, under which the labels are most likely (Guo et al., 2017).

    It is one number for all classes, so the order of a picture's classes stays as it is.
    """
    low, high = np.log(TEMPERATURES)
    found = minimize_scalar(
        lambda log_temperature: negative_log_likelihood(logits, labels, np.exp(log_temperature)),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))
