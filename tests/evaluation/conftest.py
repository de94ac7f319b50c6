"""Logits of made-up classifiers."""

from collections.abc import Callable

import numpy as np
import pytest

Make = Callable[..., tuple[np.ndarray, np.ndarray]]
LABELS = np.array([0, 0, 1, 1, 2, 2])


def logits_for(predicted, sure=5.0) -> np.ndarray:
    """Logits (N, 3) of a classifier that predicts these classes."""
    return (np.eye(3, dtype=np.float32)[np.asarray(predicted)] * sure).astype(np.float32)


@pytest.fixture
def honest() -> Make:
    """Logits (N, C) and labels drawn from the very probabilities they give: calibrated at temperature 1."""

    def make(count: int, classes: int = 10, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        logits = rng.normal(0, 2, (count, classes))
        labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)  # a draw from the softmax
        return logits.astype(np.float32), labels

    return make
