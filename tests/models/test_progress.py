"""What a training reports, and when it stops by itself."""

import math

import numpy as np
import pytest

from stages.common.errors import UserError
from stages.training.batches import Batches, LabeledImages
from stages.training.checkpoints import Checkpoints
from stages.training.progress import Progress

IMAGES = np.zeros((90, 4, 4, 3), np.uint8)


@pytest.fixture
def progress(reports, tmp_path):
    """Of two epochs of 45 steps with two images each, 100 classes."""
    batches = Batches(LabeledImages(IMAGES, np.zeros(90, np.int64)), batch_size=2, seed=0)
    return lambda: Progress("some_net", batches, 2, 100, reports.reporter, Checkpoints(tmp_path / "c", {}, 1e-9))


def test_reports_are_means_of_what_was_seen_since_the_last(progress, reports):
    ours = progress()
    ours.add(20, loss=40 * 4.0, correct=10, learning_rate=0.1)
    ours.add(40, loss=40 * 2.0, correct=20, learning_rate=0.2)
    ours.add(45, loss=10 * 1.0, correct=10, learning_rate=0.3)
    assert reports.steps == [
        (20, {"train_loss": 4.0, "train_top1": 0.25, "learning_rate": 0.1}),
        (40, {"train_loss": 2.0, "train_top1": 0.5, "learning_rate": 0.2}),
    ]
    ours.end_epoch(val_loss=1.5, val_top1=0.6)
    [(epoch, metrics)] = reports.epochs
    assert epoch == 1
    assert (metrics["train_loss"], metrics["train_top1"]) == (pytest.approx(250 / 90), pytest.approx(40 / 90))
    assert (metrics["val_loss"], metrics["val_top1"], metrics["learning_rate"]) == (1.5, 0.6, 0.3)


def test_a_resumed_one_ends_its_epoch_as_if_it_had_never_stopped(progress, reports):
    whole, first = progress(), progress()
    for one in (whole, first):
        one.add(20, loss=41.7, correct=7, learning_rate=0.1)
    assert first.checkpoint_is_due()
    first.save(lambda file: file.write_text("state"))
    second = progress()
    second.resume(second.checkpoints.latest.progress)
    for one in (whole, second):
        one.add(45, loss=33.3, correct=9, learning_rate=0.1)
        assert not one.checkpoint_is_due()  # at the end of an epoch there is one anyway
        one.end_epoch(1.5, 0.5)
    assert reports.epochs[0] == reports.epochs[1]


@pytest.mark.parametrize(("loss", "diverged"), [(4.6, False), (9.0, False), (14.0, True), (math.inf, True)])
def test_a_loss_far_above_guessing_has_diverged(progress, reports, loss, diverged):
    ours = progress()
    if diverged:
        with pytest.raises(UserError, match=r"some_net: the loss became .* by step 20, where guessing gives 4\.61"):
            ours.add(20, loss=40 * loss, correct=0, learning_rate=0.1)
    else:
        ours.add(20, loss=40 * loss, correct=0, learning_rate=0.1)
    assert [metrics["train_loss"] for _, metrics in reports.steps] == ([] if diverged else [pytest.approx(loss)])


def test_validation_that_gives_no_number_stops_the_training(progress):
    ours = progress()
    ours.add(45, loss=90.0, correct=0, learning_rate=0.1)
    with pytest.raises(UserError, match="the loss on validation became nan"):
        ours.end_epoch(math.nan, 0.01)


def test_the_bar_continues_where_the_training_does(progress, capsys):
    ours = progress()
    ours.resume({"step": 45 + 20, "loss": 1.0, "correct": 1.0})
    for _ in range(25):
        ours.advance()
    ours.add(90, loss=50 * 2.0, correct=25, learning_rate=0.1)
    ours.end_epoch(1.5, 0.6)
    shown = capsys.readouterr().err.split("\r")[-1]
    assert shown.startswith("Epoch 2/2: 100%")
    assert "45/45" in shown
    assert "val accuracy=0.600" in shown
