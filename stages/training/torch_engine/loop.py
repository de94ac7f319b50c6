"""Training of the torch classifiers on Lightning Fabric: batches in, trained network out, on any number of devices.

Fabric brings devices, processes and number formats; the loop is our own, because it has to go on from the middle of an
epoch exactly as if it had never stopped. For that, everything at a step follows from its number: the batch, the
learning rate, the random numbers of dropout. A checkpoint holds weights, optimizer and the sums of the epoch so far.
"""

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from stages.common.errors import UserError
from stages.common.settings import Compute, started_processes
from stages.models.base import Reporter, Training
from stages.training.batches import Batch, Batches
from stages.training.progress import REPORT_EVERY, Progress
from stages.training.torch_engine.precision import LIGHTNING_PRECISION, resolve_device

if TYPE_CHECKING:
    from stages.models.torch_engine.model import TorchClassifier

deterministic_mode: Any = torch.utils.deterministic  # a module with a property, which type checkers cannot see
VALIDATION_BATCH = 256  # pictures


def learning_rate_factor(step: int, steps: int, warmup: int, shape: Literal["linear", "cosine"]) -> float:
    """Share of the highest learning rate at `step` of `steps`, both counted from 0.

    Rises linearly over `warmup` steps, then falls to zero linearly or along half a cosine.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 1 - progress if shape == "linear" else (1 + math.cos(math.pi * progress)) / 2


def fit(classifier: "TorchClassifier", training: Training) -> None:
    """Train the classifier's network in place; afterwards it is on the CPU, in evaluation mode."""
    settings = classifier.settings
    batches = Batches.of(training.train, settings, classifier.seed)
    fabric = start_fabric(training.compute, classifier.resolved)
    classifier.resolved["processes"] = fabric.world_size
    if fabric.is_global_zero:
        resolved = classifier.resolved
        processes = f", {fabric.world_size} processes" if fabric.world_size > 1 else ""
        print(
            f"{settings.classifier}: training in {resolved['precision']} on {resolved['device']}, "
            f"{resolved['threads']} CPU threads{processes}",
            flush=True,
        )
    try:
        with deterministic(training.compute.deterministic), torch.random.fork_rng(devices=[]):
            _Loop(classifier, batches, training, fabric).run()
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise UserError(
            f"{settings.classifier}: out of memory with batch_size = {batches.batch_size}: lower it, or the "
            "size of pictures or network"
        ) from error
    classifier.network.cpu().eval()


def start_fabric(compute: Compute, resolved: dict[str, Any]) -> Fabric:
    """Fabric on the devices asked for, its processes running; UserError where Lightning cannot do that."""
    started = started_processes()
    if compute.num_nodes > 1 and started == 1 and "NODE_RANK" not in os.environ:  # it would wait for the others
        raise UserError(
            f"compute.num_nodes = {compute.num_nodes}: start the training on every machine, with torchrun or srun "
            "(docs/scaling.md), not from one of them alone"
        )
    for name in ("lightning.fabric", "lightning.pytorch"):  # they repeat what we say ourselves
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        fabric = Fabric(
            accelerator=resolve_device(compute),
            devices=compute.devices,
            num_nodes=compute.num_nodes,
            strategy=compute.strategy,
            precision=LIGHTNING_PRECISION[resolved["precision"]],
        )
        fabric.launch()
    except (ValueError, RuntimeError, TypeError, ImportError) as error:
        # Lightning and torch.distributed raise all of these for settings that do not fit the machine.
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"compute.devices = {compute.devices!r}, num_nodes = {compute.num_nodes}, strategy = {compute.strategy!r} "
            f"do not work on {resolved['device']}: {reason}"
        ) from error
    if started > 1 and started != fabric.world_size:
        # Each would train the whole model, all into the same folders.
        raise UserError(
            f"{started} processes were started, but compute.devices = {compute.devices!r} and num_nodes = "
            f"{compute.num_nodes} make {fabric.world_size}: let them agree"
        )
    return fabric


class _Loop:
    """One training, from its first step or from a checkpoint."""

    def __init__(self, classifier: "TorchClassifier", batches: Batches, training: Training, fabric: Fabric) -> None:
        self.classifier = classifier
        self.settings = classifier.settings
        self.batches = batches
        self.val = training.val
        self.steps = training.epochs * len(batches)
        self.warmup = round(self.steps * getattr(self.settings, "warmup_fraction", 0.0))
        self.fabric = fabric
        self.checkpoints = training.checkpoints
        self.optimizer = classifier.optimizer(classifier.resolved["precision"])
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.network = classifier.network
        self.progress = Progress(
            self.settings.classifier,
            batches,
            training.epochs,
            classifier.num_classes,
            training.reporter if fabric.is_global_zero else Reporter.silent(),
        )
        self.window = torch.zeros(2)  # of loss and correct answers since the last report, this process's share

    def run(self) -> None:
        start = self.resume()
        self.network, self.optimizer = self.fabric.setup(self.network, self.optimizer)
        self.window = self.window.to(self.fabric.device)
        self.network.train()
        try:
            while start < self.steps:
                epoch, first = divmod(start, len(self.batches))
                for index, batch in enumerate(self.batches.epoch(epoch, first), first):
                    step = epoch * len(self.batches) + index
                    last = index + 1 == len(self.batches)
                    self.train_on(batch, step)
                    self.progress.advance()
                    if (step + 1) % REPORT_EVERY == 0 or last:
                        self.close_window(step)
                        if not last and self.checkpoints and self.agree(self.checkpoints.due()):
                            self.save(step + 1)
                self.progress.end_epoch(*self.validate())
                start = (epoch + 1) * len(self.batches)
                if self.checkpoints:
                    self.save(start)
        finally:
            self.progress.close()

    def train_on(self, batch: Batch, step: int) -> None:
        """One optimizer step."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * learning_rate_factor(step, self.steps, self.warmup, self.classifier.schedule)
        # Dropout's random numbers belong to the step, not to what was drawn before; each process has its own.
        torch.manual_seed(_seed(self.classifier.seed, step, self.fabric.global_rank))
        self.classifier.before_step(step / self.steps)
        images, labels, others = (self.part(rows) for rows in (batch.images, batch.labels, batch.others))
        logits = self.network(images)
        loss = batch.share * self.loss(logits, labels)
        if batch.share < 1:
            loss = loss + (1 - batch.share) * self.loss(logits, others)
        # This process's part of the whole batch's mean; the mean over processes, which DDP takes, makes it whole.
        self.fabric.backward(loss * (self.fabric.world_size / len(batch.labels)))
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.window += torch.stack([loss.detach(), _correct(logits, labels)])

    def part(self, rows: np.ndarray) -> Tensor:
        """This process's part of a batch, on its device: every so many-th row."""
        # A copy: of a single row, ascontiguousarray leaves the negative stride of mixed labels as it is.
        part = np.array(rows[self.fabric.global_rank :: self.fabric.world_size], order="C")
        return torch.from_numpy(part).to(self.fabric.device, non_blocking=True)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy in nats, summed."""
        smoothing = getattr(self.settings, "label_smoothing", 0.0)
        return F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")

    def close_window(self, step: int) -> None:
        """Count what was seen since the last report."""
        loss, correct = self.sum_of_all(self.window)
        self.window.zero_()
        highest = max(group["lr"] for group in self.optimizer.param_groups)
        self.progress.add(step + 1, loss, correct, learning_rate=highest)

    @torch.no_grad()
    def validate(self) -> tuple[float, float]:
        """Loss in nats and top-1 on the validation pictures, each process measuring every so many-th batch."""
        self.classifier.before_step(1.0)
        self.network.eval()
        sums = torch.zeros(2, dtype=torch.float64)
        starts = range(0, len(self.val.labels), VALIDATION_BATCH)
        for start in starts[self.fabric.global_rank :: self.fabric.world_size]:
            rows = slice(start, start + VALIDATION_BATCH)
            images = torch.from_numpy(np.array(self.val.images[rows])).to(self.fabric.device)
            labels = torch.from_numpy(np.array(self.val.labels[rows])).to(self.fabric.device)
            # Not the network that DDP wraps: its processes would wait for one another at every batch.
            with self.fabric.autocast():
                logits = self.classifier.network(images).float()
            loss = F.cross_entropy(logits, labels, reduction="sum")
            sums += torch.stack([loss, _correct(logits, labels)]).cpu()
        self.network.train()
        total_loss, total_correct = self.sum_of_all(sums.float().to(self.fabric.device))
        return total_loss / len(self.val.labels), total_correct / len(self.val.labels)

    def sum_of_all(self, sums: Tensor) -> list[float]:
        """Sums over all processes."""
        total = self.fabric.all_reduce(sums.clone(), reduce_op="sum")
        assert isinstance(total, Tensor)
        return total.tolist()

    def agree(self, decision: bool) -> bool:
        """What the first process decided."""
        return self.fabric.broadcast(decision) if self.fabric.world_size > 1 else decision

    def save(self, step: int) -> None:
        """A checkpoint after `step` steps. All processes hold the same state: the first one writes."""
        assert self.checkpoints is not None
        if self.fabric.is_global_zero:
            state = {"network": self.classifier.network.state_dict(), "optimizer": self.optimizer.state_dict()}
            self.checkpoints.save(lambda file: torch.save(state, file), {"step": step, "epoch": self.progress.state()})
        self.fabric.barrier()

    def resume(self) -> int:
        """Take over the checkpoint's state, if there is one; the number of steps that are done."""
        state = None
        if self.checkpoints and self.checkpoints.latest and self.fabric.is_global_zero:
            checkpoint = self.checkpoints.latest
            state = torch.load(checkpoint.file, map_location="cpu", weights_only=True)  # no code can hide in it
            state |= checkpoint.progress
        if self.fabric.world_size > 1:
            state = self.fabric.broadcast(state)  # another machine may have no such file, or an older one
        if state is None:
            return 0
        self.classifier.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        step = int(state["step"])
        self.progress.resume(step, state["epoch"])
        return step


def _correct(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.detach().argmax(1) == labels).sum().float()


def _seed(*numbers: int) -> int:
    """Well mixed seed of 63 bits."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Only operations that give the same bits every time; torch raises where it knows none."""
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what torch asks for on CUDA
    before = torch.are_deterministic_algorithms_enabled(), deterministic_mode.fill_uninitialized_memory
    torch.use_deterministic_algorithms(wanted)
    # Guards against code that reads memory before it writes there; costs 3 % of a step.
    deterministic_mode.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        deterministic_mode.fill_uninitialized_memory = before[1]


def _is_out_of_memory(error: BaseException) -> bool:
    # On a CPU torch raises a plain RuntimeError.
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)
