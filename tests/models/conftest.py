"""Small pictures that a classifier can learn, and settings from the shipped params.yaml."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.common.settings import ClassifierSettings
from stages.models import params
from stages.models.base import Examples, Reporter

CLASSES = 4


@pytest.fixture
def easy_examples() -> Callable[..., Examples]:
    """Noise whose class is its tint, red, green, blue or none: (count, 32, 32, 3) uint8."""

    def make(count: int, seed: int = 0) -> Examples:
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, CLASSES, count)
        tints = np.array([[120, 0, 0], [0, 120, 0], [0, 0, 120], [0, 0, 0]], np.uint8)
        images = rng.integers(0, 100, (count, 32, 32, 3), dtype=np.uint8) + tints[labels][:, None, None]
        return Examples(images, labels)

    return make


@pytest.fixture
def settings_of() -> Callable[..., ClassifierSettings]:
    """The shipped settings of a model, with some of them replaced."""
    shipped = params.read(Path(__file__).parents[2] / "params.yaml")

    def make(model: str, **changes: Any) -> ClassifierSettings:
        section = shipped.model(model)
        return type(section).model_validate(section.model_dump() | changes)

    return make


class Reports:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, dict[str, float]]] = []
        self.epochs: list[tuple[int, dict[str, float]]] = []

    @property
    def reporter(self) -> Reporter:
        return Reporter(
            on_step=lambda step, metrics: self.steps.append((step, metrics)),
            on_epoch=lambda epoch, metrics: self.epochs.append((epoch, metrics)),
        )


@pytest.fixture
def reports() -> Reports:
    return Reports()
