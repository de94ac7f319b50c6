"""What a training reports, and when it stops by itself."""

import math

import numpy as np
import pytest

from stages.common.errors import UserError
from stages.training.batches import Batches, LabeledImages
from stages.training.progress import Progress

IMAGES = np.zeros((90, 4, 4, 3), np.uint8)


@pytest.fixture
def progress(reports):
    """Of two epochs of 45 steps with two images each, 100 classes."""
    batches = Batches(LabeledImages(IMAGES, np.zeros(90, np.int64)), batch_size=2, seed=0)
    return Progress("some_net", batches, 90, 100, reports.reporter)


def test_reports_are_means_of_what_was_seen_since_the_last(progress, reports):
    progress.add(20, loss=40 * 4.0, correct=10, learning_rate=0.1)
    progress.add(40, loss=40 * 2.0, correct=20, learning_rate=0.2)
    progress.add(45, loss=10 * 1.0, correct=10, learning_rate=0.3)
    assert reports.steps == [
        (20, {"train_loss": 4.0, "train_top1": 0.25, "learning_rate": 0.1}),
        (40, {"train_loss": 2.0, "train_top1": 0.5, "learning_rate": 0.2}),
    ]
    progress.end_epoch(val_loss=1.5, val_top1=0.6)
    [(epoch, metrics)] = reports.epochs
    assert epoch == 1
    assert (metrics["train_loss"], metrics["train_top1"]) == (pytest.approx(250 / 90), pytest.approx(40 / 90))
    assert (metrics["val_loss"], metrics["val_top1"], metrics["learning_rate"]) == (1.5, 0.6, 0.3)


@pytest.mark.parametrize(("loss", "diverged"), [(4.6, False), (9.0, False), (14.0, True), (math.inf, True)])
def test_a_loss_far_above_guessing_has_diverged(progress, reports, loss, diverged):
    if diverged:
        with pytest.raises(UserError, match=r"some_net: the loss became .* by step 20, where guessing gives 4\.61"):
            progress.add(20, loss=40 * loss, correct=0, learning_rate=0.1)
    else:
        progress.add(20, loss=40 * loss, correct=0, learning_rate=0.1)
    assert [metrics["train_loss"] for _, metrics in reports.steps] == ([] if diverged else [pytest.approx(loss)])


def test_validation_that_gives_no_number_stops_the_training(progress):
    progress.add(45, loss=90.0, correct=0, learning_rate=0.1)
    with pytest.raises(UserError, match="the loss on validation became nan"):
        progress.end_epoch(math.nan, 0.01)


def test_a_budget_of_minutes_is_sized_by_the_usual_step_of_the_first_process(reports):
    batches = Batches(LabeledImages(IMAGES, np.zeros(90, np.int64)), batch_size=2, seed=0)
    progress = Progress("some_net", batches, None, 100, reports.reporter, minutes=0.5)
    asked = []

    def of_first(value):
        asked.append(value)
        return value

    # Some slow ones, of two sizes of images.
    progress.plan(lambda: [0.1] * 10 + [5.0] + [0.1] * 9 + [9.0] + [0.3] * 19, of_first)
    assert progress.step_seconds == pytest.approx(0.2, abs=0.005)
    assert progress.steps == round(30 / progress.step_seconds)
    assert asked == [None, progress.step_seconds]
    other = Progress("some_net", batches, None, 100, reports.reporter, minutes=0.5)
    other.plan(lambda: [1.0] * 40, lambda value: (7, 0.5))
    assert (other.steps, other.step_seconds) == (7, 0.5), "as the first process planned"
