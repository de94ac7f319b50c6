"""The course of a training: progress bar, reports, checkpoints, and a stop where the loss diverges."""

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from stages.common.errors import UserError
from stages.training.batches import Batches, LabeledImages
from stages.training.checkpoints import Checkpoints

REPORT_EVERY = 20  # optimizer steps between two reports
POINTS, FEW = 10, 1000  # of a training, at which so many validation images are measured
PROBE_WARM_UP, PROBE_STEPS = 5, 40  # optimizer steps that find out how long one takes; the first ones do not count


@dataclass(frozen=True)
class Reporter:
    """Where fit reports.

    on_step(step, metrics): now and then; step counts optimizer steps from 1.
    on_epoch(epoch, metrics): after each pass, epoch from 1, and at the end; a training that ends within a pass reports
    e.g. 1.37. metrics has train_loss, train_top1, val_loss, val_top1 (losses in nats, shares between 0 and 1) and
    learning_rate (the highest of all layers), all floats.
    on_learning(images, metrics): at about POINTS points of a training, evenly in images, so many of which it has seen;
    metrics has val_top1 and val_loss, of few validation images.
    after_step(): after each optimizer step.
    is_silent: show no progress bar.
    """

    on_step: Callable[[int, dict[str, float]], object] = lambda step, metrics: None
    on_epoch: Callable[[float, dict[str, float]], object] = lambda epoch, metrics: None
    on_learning: Callable[[int, dict[str, float]], object] = lambda images, metrics: None
    after_step: Callable[[], object] = lambda: None
    is_silent: bool = False


def passes(seen: int, images: int) -> float:
    """How often `images` were seen, an int where that is a whole number."""
    return seen // images if seen % images == 0 else round(seen / images, 3)


def progress_bar(iterable: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """tqdm's bar, which writes few lines where they end up in a file."""
    watched = sys.stderr.isatty()
    return tqdm(iterable, mininterval=0.2 if watched else 20, dynamic_ncols=watched, **options)  # seconds


def few_rows(val: LabeledImages) -> np.ndarray:
    """The rows (FEW,) or fewer that a training is measured on while it goes on, the same for all models and seeds."""
    return np.sort(np.random.default_rng(0).permutation(len(val.labels))[:FEW])


class Progress:
    """Sums up a training's results, reports them, and keeps its checkpoints.

    classifier_name: for messages.
    steps: of the whole training; None: as many as fit into `minutes`, once `plan` knows the speed.
    num_classes: C; a loss far above ln C, that of guessing, has diverged.
    few: what to measure at about POINTS points of the training, evenly in images; None: nothing.

    The engine calls plan, then advance after every optimizer step, add every REPORT_EVERY steps and where an epoch or
    a phase ends, measure_few after the steps that have a point, and end_epoch after validation.
    """

    def __init__(
        self,
        classifier_name: str,
        batches: Batches,
        steps: int | None,
        num_classes: int,
        reporter: Reporter,
        checkpoints: Checkpoints | None = None,
        few: LabeledImages | None = None,
        minutes: float | None = None,
    ) -> None:
        self.classifier_name = classifier_name
        self.batches = batches
        self.steps = steps or 0
        self.minutes = minutes
        self.step_seconds: float | None = None  # where they were measured
        self.num_classes = num_classes
        self.reporter = reporter
        self.checkpoints = checkpoints
        self.few = few
        self.step = 0  # optimizer steps that were counted
        self.loss = self.correct = 0.0  # sums over the images of the epoch so far
        self.learning_rate = 0.0
        self.bar: tqdm | None = None

    def plan(self, time_steps: Callable[[], list[float]], of_first: Callable[[Any], Any] = lambda value: value) -> None:
        """Size the schedule to the minutes, where the budget is one of time; a resumed training keeps its own.

        time_steps(): the seconds that each optimizer step of `probe` takes. of_first(value): that of the first process.
        """
        if self.minutes is None:
            return
        latest = self.checkpoints.latest if self.checkpoints else None
        planned = of_first(latest and (latest.progress["steps"], latest.progress["step_seconds"]))
        if not planned:
            with self.paused():
                # Without the odd slow step, e.g. the first one of another size, of which a whole training has few.
                usual = pd.Series(time_steps()).rolling(5, center=True, min_periods=3).median()
            seconds = of_first(float(usual.mean()))
            planned = max(1, round(60 * self.minutes / seconds)), seconds
        self.steps, self.step_seconds = planned
        if not self.reporter.is_silent:
            steps, milliseconds = f"{self.steps:,} steps", 1000 * self.step_seconds
            print(f"{self.classifier_name}: {steps} of {milliseconds:.3g} ms fill {self.minutes:g} minutes", flush=True)

    def probe(self) -> "Progress":
        """Of a short training that is to measure the speed: PROBE_STEPS in the shares of the whole schedule."""
        return Progress(self.classifier_name, self.batches, PROBE_STEPS, self.num_classes, Reporter(is_silent=True))

    def paused(self) -> AbstractContextManager[None]:
        """What happens meanwhile is not the training's time."""
        return self.checkpoints.paused() if self.checkpoints else nullcontext()

    def is_last_of_epoch(self, step: int) -> bool:
        """Whether an epoch, or the training within one, ends after so many steps."""
        return step % len(self.batches) == 0 or step == self.steps

    def advance(self) -> None:
        """One more optimizer step."""
        if self.bar is None:
            epoch, done = divmod(self.step, len(self.batches))
            self.bar = progress_bar(
                total=min(len(self.batches), self.steps - self.step + done),
                initial=done,
                desc=f"Epoch {epoch + 1}/{-(-self.steps // len(self.batches))}",
                disable=self.reporter.is_silent,
            )
        self.bar.update()
        self.reporter.after_step()

    def add(self, step: int, loss: float, correct: float, learning_rate: float) -> None:
        """Count the steps up to `step`, all in one epoch: sums of loss (nats) and right predictions over their images.

        UserError where the loss has diverged.
        """
        size = self.batches.images_until(step) - self.batches.images_until(self.step)
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
        seen, images = self.batches.images_until(self.step), len(self.batches.examples.labels)
        size = seen % images or images
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
        self.reporter.on_epoch(passes(seen, images), metrics)

    @cached_property
    def points(self) -> set[int]:
        """The steps after which `few` is measured."""
        images = self.batches.images_until(self.steps)
        return {self.batches.steps_to(images * point // POINTS) for point in range(1, POINTS + 1)}

    def has_point(self, step: int) -> bool:
        """Whether to call measure_few after so many steps."""
        return self.few is not None and step in self.points

    def measure_few(self, step: int, measure: Callable[[LabeledImages], tuple[float, float]]) -> None:
        """Measure and report `few`; its cost is none of the training's.

        measure(few): loss in nats and top-1, of the network as it is.
        """
        assert self.few is not None
        with self.paused():
            loss, top1 = measure(self.few)
        self.reporter.on_learning(self.batches.images_until(step), {"val_top1": top1, "val_loss": loss})

    def close(self) -> None:
        """Finish the bar, also of an epoch that was interrupted."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def checkpoint_is_due(self) -> bool:
        """Whether to save within the epoch; after each epoch save does so anyway."""
        return not self.is_last_of_epoch(self.step) and self.checkpoints is not None and self.checkpoints.due()

    def save(self, write: Callable[[Path], Any]) -> None:
        """Leave a checkpoint after the steps counted so far; write: writes the engine's state into a file."""
        if self.checkpoints:
            kept = ("step", "loss", "correct", "steps", "step_seconds")
            self.checkpoints.save(write, {name: getattr(self, name) for name in kept})

    def resume(self, saved: Mapping[str, Any]) -> None:
        """Continue from a checkpoint; saved: its progress."""
        self.step, self.loss, self.correct = int(saved["step"]), float(saved["loss"]), float(saved["correct"])
        if not self.reporter.is_silent:
            name, step, steps = self.classifier_name, self.step, self.steps
            print(f"{name}: resuming from the checkpoint after step {step:,} of {steps:,}", flush=True)

    def _diverged(self, what: str) -> UserError:
        return UserError(f"{self.classifier_name}: {what}: lower the learning rate or lengthen its warm-up")
