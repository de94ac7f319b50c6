"""A reporter that remembers, every small classifier in turn, and trainings that are interrupted."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from stages.models import prepare_frameworks
from stages.models.base import Classifier
from stages.training import fit
from stages.training.checkpoints import Checkpoints
from stages.training.progress import Reporter
from tests.models import small
from tests.models.small import CPU, tinted

prepare_frameworks()


class Reports:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, dict[str, float]]] = []
        self.epochs: list[tuple[float, dict[str, float]]] = []
        self.learning: list[tuple[int, dict[str, float]]] = []
        self.reporter = Reporter(
            on_step=lambda step, metrics: self.steps.append((step, metrics)),
            on_epoch=lambda epoch, metrics: self.epochs.append((epoch, metrics)),
            on_learning=lambda images, metrics: self.learning.append((images, metrics)),
        )


class Interrupted(Exception):  # noqa: N818
    """What interrupts a training."""


def assert_resumes(make: Callable[[], Classifier], folder: Path, *interruptions: int) -> None:
    """Interrupted after these steps, three epochs of 40 steps report and end as without, bit for bit."""

    def run(checkpoints: Checkpoints | None = None, last_step: int = 120) -> tuple[Reports, bytes]:
        def interrupt(step: int, metrics: dict[str, float]) -> None:
            if step > last_step:
                raise Interrupted
            reports.reporter.on_step(step, metrics)

        classifier, reports = make(), Reports()
        reporter = replace(reports.reporter, on_step=interrupt)
        train, val = tinted(16 * 40 - 3), tinted(50, seed=1)
        with suppress(Interrupted):
            options = {"compute": CPU, "reporter": reporter, "checkpoints": checkpoints, "learning": True}
            fit(classifier, train, val, epochs=3, **options)
        return reports, classifier.save_weights(folder).read_bytes()

    expected, weights = run()
    assert [step for step, _ in expected.steps] == [20, 40, 60, 80, 100, 120]
    assert [epoch for epoch, _ in expected.epochs] == [1, 2, 3]
    assert len(expected.learning) == 10
    for last_step in (*interruptions, 120):
        resumed, found = run(Checkpoints(folder / "checkpoints", {}, minutes=1e-9), last_step)
    assert resumed.steps == expected.steps[interruptions[-1] // 20 :]
    assert resumed.epochs == expected.epochs[interruptions[-1] // 40 :]
    # Points of 12 steps each; the checkpoint after the interruption's step holds those before it.
    assert resumed.learning == expected.learning[interruptions[-1] // 12 :]
    assert found == weights


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
