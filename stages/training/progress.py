"""How a training goes on, for people and for the record: the bar, the reports, and a stop when the loss runs away."""

import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from tqdm import tqdm

from stages.common.errors import UserError
from stages.models.base import Reporter
from stages.training.batches import Batches

REPORT_EVERY = 20  # optimizer steps between two reports


def progress_bar(iterable: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """tqdm's bar, which writes few lines where they end up in a file."""
    watched = sys.stderr.isatty()
    return tqdm(iterable, mininterval=0.2 if watched else 20, dynamic_ncols=watched, **options)  # seconds


class Progress:
    """Counts the training's results and shows them: one bar per epoch, a report now and then and after each epoch.

    classifier_name: for error messages.
    num_classes: C; a loss far above ln C, that of guessing, is one that runs away.

    The engine calls step after every optimizer step, add every REPORT_EVERY steps and where an epoch or a phase ends.
    """

    def __init__(
        self, classifier_name: str, batches: Batches, epochs: int, num_classes: int, reporter: Reporter
    ) -> None:
        self.classifier_name = classifier_name
        self.batches = batches
        self.epochs = epochs
        self.num_classes = num_classes
        self.reporter = reporter
        self.step = 0  # optimizer steps that were counted
        self.epoch_loss = self.epoch_correct = 0.0  # sums over the examples of the epoch so far
        self.learning_rate = 0.0
        self.bar: tqdm | None = None

    def advance(self) -> None:
        """One more optimizer step, for the bar and whoever waits for each."""
        if self.bar is None:
            epoch, done = divmod(self.step, len(self.batches))
            self.bar = progress_bar(
                total=len(self.batches),
                initial=done,
                desc=f"Epoch {epoch + 1}/{self.epochs}",
                disable=self.reporter.is_silent,
            )
        self.bar.update()
        self.reporter.after_step()

    def add(self, step: int, loss: float, correct: float, learning_rate: float) -> None:
        """Count the steps up to `step`, all in one epoch: sums of loss (nats) and right answers over their examples."""
        size = self.batches.examples_between(self.step, step)
        mean, top1 = loss / size, correct / size
        guessing = math.log(self.num_classes)
        if not mean < max(10.0, 3 * guessing):
            raise UserError(
                f"{self.classifier_name}: the loss became {mean:.3g} by step {step}, where guessing gives "
                f"{guessing:.3g}: lower the learning rate or lengthen its warm-up"
            )
        self.epoch_loss += loss
        self.epoch_correct += correct
        self.learning_rate = learning_rate
        self.step = step
        if self.bar is not None:
            self.bar.set_postfix({"loss": f"{mean:.3f}", "accuracy": f"{top1:.3f}"}, refresh=False)
        if step % REPORT_EVERY == 0:
            metrics = {"train_loss": mean, "train_top1": top1, "learning_rate": learning_rate}
            self.reporter.on_step(step, metrics)

    def end_epoch(self, val_loss: float, val_top1: float) -> None:
        """Report the epoch: its training examples' means, and what validation gave."""
        if not math.isfinite(val_loss):
            raise UserError(
                f"{self.classifier_name}: the loss on validation became {val_loss} by step {self.step}: "
                "lower the learning rate or lengthen its warm-up"
            )
        size = len(self.batches.examples.labels)
        metrics = {
            "train_loss": self.epoch_loss / size,
            "train_top1": self.epoch_correct / size,
            "val_loss": val_loss,
            "val_top1": val_top1,
            "learning_rate": self.learning_rate,
        }
        if self.bar is not None:
            shown = {"loss": "train_loss", "accuracy": "train_top1", "val accuracy": "val_top1"}
            self.bar.set_postfix({label: f"{metrics[name]:.3f}" for label, name in shown.items()})
        self.close()
        self.epoch_loss = self.epoch_correct = 0.0
        self.reporter.on_epoch(self.step // len(self.batches), metrics)

    def state(self) -> dict[str, float]:
        """What a checkpoint has to hold beside the step."""
        return {"loss": self.epoch_loss, "correct": self.epoch_correct}

    def resume(self, step: int, state: Mapping[str, Any]) -> None:
        """Go on after `step` steps, with what `state` gave then."""
        self.step = step
        self.epoch_loss, self.epoch_correct = float(state["loss"]), float(state["correct"])
        total = self.epochs * len(self.batches)
        if not self.reporter.is_silent:
            print(f"{self.classifier_name}: going on from the checkpoint after step {step:,} of {total:,}", flush=True)

    def close(self) -> None:
        """Finish the bar, also of an epoch that was broken off."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
