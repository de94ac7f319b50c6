"""Training of the torch classifiers by Lightning: batches in, trained network out."""

import logging
import math
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import lightning
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from tqdm import tqdm

from ..batches import Batches
from ..classifier import Examples, Reporter
from ..errors import ClassifierError
from ..settings import Compute
from .precision import resolve_device, resolve_precision

if TYPE_CHECKING:
    from .classifier import TorchClassifier

VALIDATION_BATCH = 256
REPORT_EVERY = 20  # optimizer steps between two reports


def learning_rate_factor(step: int, steps: int, warmup: int, shape: Literal["linear", "cosine"]) -> float:
    """Share of the highest learning rate at `step` of `steps`, both counted from 0.

    Rises linearly over `warmup` steps, then falls to zero linearly or along half a cosine.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 1 - progress if shape == "linear" else (1 + math.cos(math.pi * progress)) / 2


class TrainingLoader:
    """What Lightning iterates: the batches of the epoch it is in, as tensors."""

    def __init__(self, batches: Batches, current_epoch: Callable[[], int]) -> None:
        self.batches = batches
        self.current_epoch = current_epoch

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self.batches.epoch(self.current_epoch()):
            yield torch.from_numpy(images), torch.from_numpy(labels)


class ValidationLoader:
    """All examples in their order, in batches of tensors."""

    def __init__(self, examples: Examples) -> None:
        # One copy in memory: torch takes no read-only arrays.
        self.images = torch.from_numpy(examples.images.copy())
        self.labels = torch.from_numpy(examples.labels.copy())

    def __len__(self) -> int:
        return -(-len(self.labels) // VALIDATION_BATCH)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.images.split(VALIDATION_BATCH), self.labels.split(VALIDATION_BATCH), strict=True)


class ProgressBar(TQDMProgressBar):
    """One bar per epoch: loss, accuracy, time left. Few lines where nobody watches (a log file)."""

    def __init__(self, steps: int) -> None:
        super().__init__(refresh_rate=max(1, steps // (100 if sys.stderr.isatty() else 10)), leave=True)

    def get_metrics(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        shown = {"train_loss_step": "loss", "train_top1_step": "accuracy", "val_top1": "val accuracy"}
        metrics = trainer.callback_metrics
        return {label: f"{float(metrics[name]):.3f}" for name, label in shown.items() if name in metrics}

    def on_train_epoch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description(f"Epoch {trainer.current_epoch + 1}/{trainer.max_epochs}")

    def init_validation_tqdm(self) -> Any:
        return tqdm(disable=True)


class Training(lightning.LightningModule):
    """The loop's body: one step of training or validation, and the reports."""

    def __init__(self, classifier: "TorchClassifier", reporter: Reporter, precision: str) -> None:
        super().__init__()
        self.resolved_precision = precision
        self.network = classifier.network
        self.classifier = classifier
        self.reporter = reporter

    def configure_optimizers(self) -> Any:
        optimizer = self.classifier.optimizer(self.resolved_precision)
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = round(steps * getattr(self.classifier.settings, "warmup_fraction", 0.0))
        shape = self.classifier.schedule
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, steps, warmup, shape)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        images, labels = batch
        logits = self.network(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=getattr(self.classifier.settings, "label_smoothing", 0))
        shares = {"train_loss": loss.detach(), "train_top1": (logits.argmax(1) == labels).float().mean()}
        self.log_dict(shares, on_step=True, on_epoch=True, prog_bar=True, batch_size=len(labels))
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.global_step % REPORT_EVERY:
            return
        metrics = self.trainer.callback_metrics
        loss = float(metrics["train_loss_step"])
        if not math.isfinite(loss):
            raise ClassifierError(
                f"{self.classifier.settings.classifier}: the loss became {loss} at step {self.global_step}: "
                "lower the learning rate or raise warmup_fraction"
            )
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        step = {"train_loss": loss, "train_top1": float(metrics["train_top1_step"]), "learning_rate": rate}
        self.reporter.on_step(self.global_step, step)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        images, labels = batch
        logits = self.network(images).float()
        shares = {"val_loss": F.cross_entropy(logits, labels), "val_top1": (logits.argmax(1) == labels).float().mean()}
        self.log_dict(shares, prog_bar=True, batch_size=len(labels))

    def on_train_epoch_end(self) -> None:
        metrics = self.trainer.callback_metrics
        epoch = {
            "train_loss": float(metrics["train_loss_epoch"]),
            "train_top1": float(metrics["train_top1_epoch"]),
            "val_loss": float(metrics["val_loss"]),
            "val_top1": float(metrics["val_top1"]),
            "learning_rate": self.trainer.optimizers[0].param_groups[0]["lr"],
        }
        if not all(math.isfinite(value) for value in epoch.values()):
            raise ClassifierError(
                f"{self.classifier.settings.classifier}: the loss is no finite number after epoch "
                f"{self.current_epoch + 1}: lower the learning rate or raise warmup_fraction"
            )
        self.reporter.on_epoch(self.current_epoch + 1, epoch)


def fit(
    classifier: "TorchClassifier",
    train: Examples,
    val: Examples,
    *,
    epochs: int,
    compute: Compute,
    reporter: Reporter,
) -> None:
    """Train the classifier's network in place; afterwards it is on the CPU, in evaluation mode."""
    settings = classifier.settings
    device = resolve_device(compute)
    precision = resolve_precision(compute, device)
    classifier.resolved |= {
        "device": torch.cuda.get_device_name() if device == "gpu" else device,
        "precision": precision,
        "threads": torch.get_num_threads(),
    }
    print(f"{settings.classifier}: training in {precision} on {device}, {torch.get_num_threads()} CPU threads")
    batches = Batches(train, settings.batch_size, classifier.seed, settings.crop_padding, settings.flip)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    lightning.seed_everything(classifier.seed, verbose=False)  # dropout; the order of examples has its own seeds
    with warnings.catch_warnings():
        # Our loaders hold finished batches in memory: workers would only copy them.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
        trainer = lightning.Trainer(
            accelerator=device,
            devices=1,
            precision="bf16-mixed" if precision == "bfloat16" else "32-true",
            max_epochs=epochs,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            callbacks=[ProgressBar(len(batches))],
        )
        loader = TrainingLoader(batches, lambda: trainer.current_epoch)
        on_interrupt = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(Training(classifier, reporter, precision), loader, ValidationLoader(val))
        except SystemExit:  # Lightning's answer to Ctrl-C, which it ignores from then on
            signal.signal(signal.SIGINT, on_interrupt)
            raise KeyboardInterrupt from None
    classifier.network.cpu().eval()
