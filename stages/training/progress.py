"""The course of a training: progress bar, reports, checkpoints, and a stop where the loss diverges."""

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stages.common.errors import UserError
from stages.training.batches import Batches
from stages.training.checkpoints import Checkpoints

REPORT_EVERY = 20  # optimizer steps between two reports


@dataclass(frozen=True)
class Reporter:
    """Where fit reports.

    on_step(step, metrics): now and then; step counts optimizer steps from 1.
    on_epoch(epoch, metrics): after each pass, epoch from 1; metrics has train_loss, train_top1, val_loss, val_top1
    (losses in nats, shares between 0 and 1) and learning_rate (the highest of all layers), all floats.
    after_step(): after each optimizer step.
    is_silent: show no progress bar.
    """

    on_step: Callable[[int, dict[str, float]], object] = lambda step, metrics: None
    on_epoch: Callable[[int, dict[str, float]], object] = lambda epoch, metrics: None
    after_step: Callable[[], object] = lambda: None
    is_silent: bool = False


def progress_bar(iterable: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """tqdm's bar, which writes few lines where they end up in a file."""
    watched = sys.stderr.isatty()
    return tqdm(iterable, mininterval=0.2 if watched else 20, dynamic_ncols=watched, **options)  # seconds


class Progress:
    """Sums up a training's results, reports them, and keeps its checkpoints.

    classifier_name: for messages.
    num_classes: C; a loss far above ln C, that of guessing, has diverged.

    The engine calls advance after every optimizer step, add every REPORT_EVERY steps and where an epoch or a phase
    ends, and end_epoch after validation.
    """

    def __init__(
        self,
        classifier_name: str,
        batches: Batches,
        epochs: int,
        num_classes: int,
        reporter: Reporter,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self.classifier_name = classifier_name
        self.batches = batches
        self.steps = epochs * len(batches)  # of the whole training
        self.num_classes = num_classes
        self.reporter = reporter
        self.checkpoints = checkpoints
        self.step = 0  # optimizer steps that were counted
        self.loss = self.correct = 0.0  # sums over the images of the epoch so far
        self.learning_rate = 0.0
        self.bar: tqdm | None = None

    def advance(self) -> None:
        """One more optimizer step."""
        if self.bar is None:
            epoch, done = divmod(self.step, len(self.batches))
            self.bar = progress_bar(
                total=len(self.batches),
                initial=done,
                desc=f"Epoch {epoch + 1}/{self.steps // len(self.batches)}",
                disable=self.reporter.is_silent,
            )
        self.bar.update()
        self.reporter.after_step()

    def add(self, step: int, loss: float, correct: float, learning_rate: float) -> None:
        """Count the steps up to `step`, all in one epoch: sums of loss (nats) and right predictions over their images.

        UserError where the loss has diverged.
        """
        size = self.batches.images_between(self.step, step)
        mean, top1 = loss / size, correct / size
        guessing = math.log(self.num_classes)
        if not mean < max(10.0, 3 * guessing):
            raise self._diverged(f"the loss became {mean:.3g} by step {step}, where guessing gives {guessing:.3g}")
        self.step, self.learning_rate = step, learning_rate
        self.loss += loss
        self.correct += correct
        if self.bar is not None:
            self.bar.set_postfix({"loss": f"{mean:.3f}", "accuracy": f"{top1:.3f}"}, refresh=False)
        if step % REPORT_EVERY == 0:
            self.reporter.on_step(step, {"train_loss": mean, "train_top1": top1, "learning_rate": learning_rate})

    def end_epoch(self, val_loss: float, val_top1: float) -> None:
        """Report the epoch: the means over its training images, and what validation gave."""
        if not math.isfinite(val_loss):
            raise self._diverged(f"the loss on validation became {val_loss} by step {self.step}")
        size = len(self.batches.examples.labels)
        metrics = {
            "train_loss": self.loss / size,
            "train_top1": self.correct / size,
            "val_loss": val_loss,
            "val_top1": val_top1,
            "learning_rate": self.learning_rate,
        }
        if self.bar is not None:
            shown = {"loss": "train_loss", "accuracy": "train_top1", "val accuracy": "val_top1"}
            self.bar.set_postfix({label: f"{metrics[name]:.3f}" for label, name in shown.items()})
        self.close()
        self.loss = self.correct = 0.0
        self.reporter.on_epoch(self.step // len(self.batches), metrics)

    def close(self) -> None:
        """Finish the bar, also of an epoch that was interrupted."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def checkpoint_is_due(self) -> bool:
        """Whether to save within the epoch; after each epoch save does so anyway."""
        within = self.step % len(self.batches) != 0
        return within and self.checkpoints is not None and self.checkpoints.due()

    def save(self, write: Callable[[Path], Any]) -> None:
        """Leave a checkpoint after the steps counted so far; write: writes the engine's state into a file."""
        if self.checkpoints:
            self.checkpoints.save(write, {"step": self.step, "loss": self.loss, "correct": self.correct})

    def resume(self, saved: Mapping[str, Any]) -> None:
        """Continue from a checkpoint; saved: its progress."""
        self.step, self.loss, self.correct = int(saved["step"]), float(saved["loss"]), float(saved["correct"])
        if not self.reporter.is_silent:
            name, step, steps = self.classifier_name, self.step, self.steps
            print(f"{name}: resuming from the checkpoint after step {step:,} of {steps:,}", flush=True)

    def _diverged(self, what: str) -> UserError:
        return UserError(f"{self.classifier_name}: {what}: lower the learning rate or lengthen its warm-up")
