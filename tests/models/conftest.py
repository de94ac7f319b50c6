"""A reporter that remembers, and every small classifier in turn."""

from collections.abc import Callable
from functools import partial

import pytest

from stages.models import prepare_frameworks
from stages.models.base import Classifier
from stages.training.progress import Reporter
from tests.models import small

prepare_frameworks()


class Reports:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, dict[str, float]]] = []
        self.epochs: list[tuple[int, dict[str, float]]] = []
        self.reporter = Reporter(
            on_step=lambda step, metrics: self.steps.append((step, metrics)),
            on_epoch=lambda epoch, metrics: self.epochs.append((epoch, metrics)),
        )


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture(params=["vit_scratch", "vit_transfer", "linear_keras"])
def make(request) -> Callable[..., Classifier]:
    """Makes a small classifier of each engine: make(seed=0, **changes of its settings)."""
    if request.param == "linear_keras":
        from tests.models.linear_keras import linear_keras

        return linear_keras
    return partial(small.classifier, request.param)
