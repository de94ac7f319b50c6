"""Whether probabilities mean what they say: of images given 70 %, seven in ten should be right.

Probabilities are the softmax of logits (N, C) divided by a temperature; labels are (N,) integer.
"""

from typing import Literal

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

BINS = 15
Bins = Literal["mass", "width"]  # of equal mass: as many images in each; of equal width: from 0 to 1
TEMPERATURES = (0.05, 20.0)  # where the best one is looked for


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Their softmax, computed in float64: (N, C) float64, rows sum to 1."""
    return softmax(logits.astype(np.float64) / temperature, axis=1)


def reliability(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0, bins: Bins = "mass") -> pd.DataFrame:
    """Accuracy by confidence, the highest probability (Guo et al., 2017, https://arxiv.org/abs/1706.04599).

    A row for each bin that has images, lowest first: mean confidence and accuracy (shares), images. Of bins of equal
    mass (Nguyen & O'Connor, 2015, https://arxiv.org/abs/1508.05154) none is nearly empty; papers report equal width.
    """
    calibrated = probabilities(logits, temperature)
    confidence, right = calibrated.max(axis=1), calibrated.argmax(axis=1) == labels
    if bins == "mass":
        parts = np.array_split(np.argsort(confidence, kind="stable"), BINS)
    else:
        parts = [np.flatnonzero(np.ceil(confidence * BINS) == number) for number in range(1, BINS + 1)]
    rows = [(confidence[part].mean(), right[part].mean(), len(part)) for part in parts if len(part)]
    return pd.DataFrame(rows, columns=["confidence", "accuracy", "images"])


def expected_calibration_error(
    logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0, bins: Bins = "mass"
) -> float:
    """Mean distance of accuracy and confidence over 15 bins of `reliability`, weighted by images: between 0 and 1."""
    table = reliability(logits, labels, temperature, bins)
    return float(np.average((table["confidence"] - table["accuracy"]).abs(), weights=table["images"]))


def brier_score(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean squared distance of the probabilities from the truth, summed over classes: 0 to 2 (Brier, 1950)."""
    errors = probabilities(logits, temperature)
    errors[np.arange(len(labels)), labels] -= 1
    return float((errors**2).sum(axis=1).mean())


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean of -log p(class), in nats."""
    log_probabilities = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature, between 0.05 and 20, under which the labels are most likely (Guo et al., 2017).

    It is one number for all classes, so the order of an image's classes stays as it is.
    """
    low, high = np.log(TEMPERATURES)
    found = minimize_scalar(
        lambda log_temperature: negative_log_likelihood(logits, labels, np.exp(log_temperature)),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))
