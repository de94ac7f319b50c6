"""Training of the torch classifiers on Lightning Fabric: batches in, trained network out, on any number of devices.

Fabric brings devices, processes and number formats; the loop is our own, because a training resumed in the middle of an
epoch ends with the bits of one that was never interrupted. For that, everything at a step follows from its number: the
batch, the learning rate, the random numbers of dropout. A checkpoint holds weights, their average if one is kept,
optimizer and the sums of the epoch so far.
"""

import copy
import logging
import math
import os
import time
from itertools import chain, count
from typing import Any, Literal

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from stages.common.errors import UserError
from stages.common.settings import Compute, started_processes
from stages.models.torch_engine.model import TorchClassifier
from stages.training.batches import Batch, LabeledImages
from stages.training.progress import PROBE_WARM_UP, REPORT_EVERY, Progress
from stages.training.torch_engine.device import accelerator

FABRIC_PRECISION: dict[str, Literal["32-true", "bf16-mixed"]] = {"float32": "32-true", "bfloat16": "bf16-mixed"}
VALIDATION_BATCH = 256  # images
deterministic_mode: Any = torch.utils.deterministic  # a module with a property, which type checkers cannot see


def learning_rate_factor(step: int, steps: int, warmup: int, shape: Literal["linear", "cosine"]) -> float:
    """Share of the highest learning rate at `step` of `steps`, both counted from 0.

    Rises linearly over `warmup` steps, then falls to zero linearly or along half a cosine.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 1 - progress if shape == "linear" else (1 + math.cos(math.pi * progress)) / 2


def train(classifier: TorchClassifier, val: LabeledImages, progress: Progress, compute: Compute) -> None:
    """Train the classifier's network in place; afterwards it is on the CPU, in evaluation mode."""
    classifier.before_training(progress.batches.examples.images)
    fabric = start_fabric(compute, classifier.resolved)
    classifier.resolved["processes"] = fabric.world_size
    set_deterministic(compute.deterministic)
    with torch.random.fork_rng(devices=[]):
        progress.plan(lambda: time_steps(classifier, val, progress, fabric), fabric.broadcast)
        _Loop(classifier, val, progress, fabric).run()
    classifier.network.cpu().eval()


def time_steps(classifier: TorchClassifier, val: LabeledImages, progress: Progress, fabric: Fabric) -> list[float]:
    """How long the optimizer steps of a short training take: of a copy, the classifier itself stays as it is."""
    return _Loop(copy.deepcopy(classifier), val, progress.probe(), fabric).time_steps()


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory did not suffice; on a CPU torch raises a plain RuntimeError."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def set_deterministic(wanted: bool) -> None:
    """From now on only operations that give the same bits every time; torch raises where it knows none."""
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what torch asks for on CUDA
    torch.use_deterministic_algorithms(wanted)
    # Guards against code that reads memory before it writes there; costs 3 % of a step.
    deterministic_mode.fill_uninitialized_memory = False


def start_fabric(compute: Compute, resolved: dict[str, Any]) -> Fabric:
    """Fabric on the devices asked for, its processes running; UserError where Lightning cannot do that."""
    started = started_processes()
    if compute.num_nodes > 1 and started == 1 and "NODE_RANK" not in os.environ:  # it would wait for the others
        raise UserError(
            f"compute.num_nodes = {compute.num_nodes}: start the training on every machine, with torchrun or srun "
            "(docs/scaling.md), not from one of them alone"
        )
    for name in ("lightning.fabric", "lightning.pytorch"):  # they repeat what we print ourselves
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        fabric = Fabric(
            accelerator=accelerator(compute),
            devices=compute.devices,
            num_nodes=compute.num_nodes,
            strategy=compute.strategy,
            precision=FABRIC_PRECISION[resolved["precision"]],
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

    def __init__(self, classifier: TorchClassifier, val: LabeledImages, progress: Progress, fabric: Fabric) -> None:
        self.classifier = classifier
        self.val = val
        self.progress = progress
        self.batches = progress.batches
        self.fabric = fabric
        settings = classifier.settings
        self.smoothing = getattr(settings, "label_smoothing", 0.0)
        self.warmup = round(progress.steps * getattr(settings, "warmup_fraction", 0.0))
        self.optimizer = classifier.optimizer(classifier.resolved["precision"])
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.network = classifier.network
        self.average: AveragedModel | None = None
        if decay := getattr(settings, "ema", 0.0):
            self.average = AveragedModel(self.network, fabric.device, multi_avg_fn=get_ema_multi_avg_fn(decay)).eval()
        # Sums of loss and right predictions since the last report, of this process.
        self.window = torch.zeros(2, device=fabric.device)

    def run(self) -> None:
        self.resume()
        self.network, self.optimizer = self.fabric.setup(self.network, self.optimizer)
        self.network.train()
        while self.progress.step < self.progress.steps:
            epoch, first = divmod(self.progress.step, len(self.batches))
            for step, batch in enumerate(self.batches.epoch(epoch, first), self.progress.step):
                self.train_on(batch, step)
                self.progress.advance()
                is_last = self.progress.is_last_of_epoch(step + 1)
                is_report = (step + 1) % REPORT_EVERY == 0 or is_last
                if is_report:
                    self.close_window(step)
                if self.progress.has_point(step + 1):
                    self.window.tolist()  # what the device has still to do is the training's time
                    self.progress.measure_few(step + 1, self.validate)
                # As rank 0 decides.
                if is_report and not is_last and self.fabric.broadcast(self.progress.checkpoint_is_due()):
                    self.save()
                if is_last:
                    break
            self.progress.end_epoch(*self.validate(self.val))
            self.save()
        if self.average:
            self.classifier.network.load_state_dict(self.average.module.state_dict())

    def time_steps(self) -> list[float]:
        """The seconds of each step, after some to warm up."""
        self.network, self.optimizer = self.fabric.setup(self.network, self.optimizer)
        self.network.train()
        ends = []
        batches = chain.from_iterable(self.batches.epoch(epoch) for epoch in count())
        for step, batch in zip(range(-PROBE_WARM_UP, self.progress.steps), batches, strict=False):
            self.train_on(batch, max(0, step))
            self.window.tolist()  # when the device has done what it was given
            ends.append(time.perf_counter())
        return np.diff(ends)[PROBE_WARM_UP - 1 :].tolist()

    def train_on(self, batch: Batch, step: int) -> None:
        """One optimizer step."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * learning_rate_factor(step, self.progress.steps, self.warmup, self.classifier.schedule)
        # Dropout's random numbers belong to the step, not to what was drawn before; each process has its own.
        torch.manual_seed(_seed(self.classifier.seed, step, self.fabric.global_rank))
        self.classifier.before_step(step / self.progress.steps)
        images, labels, others = (self.part(rows) for rows in (batch.images, batch.labels, batch.others))
        logits = self.network(images)
        loss = batch.share * self.loss(logits, labels)
        if batch.share < 1:
            loss = loss + (1 - batch.share) * self.loss(logits, others)
        # This process's part of the whole batch's mean; the mean over processes, which DDP takes, makes it whole.
        self.fabric.backward(loss * (self.fabric.world_size / len(batch.labels)))
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average:
            self.average.update_parameters(self.classifier.network)
        self.window += torch.stack([loss.detach(), _correct(logits, labels)])

    def part(self, rows: np.ndarray) -> Tensor:
        """This process's part of a batch, on its device: every so many-th row."""
        # A copy: of a single row, ascontiguousarray leaves the negative stride of mixed labels as it is.
        part = np.array(rows[self.fabric.global_rank :: self.fabric.world_size], order="C")
        return torch.from_numpy(part).to(self.fabric.device, non_blocking=True)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy in nats, summed."""
        return F.cross_entropy(logits, labels, label_smoothing=self.smoothing, reduction="sum")

    def close_window(self, step: int) -> None:
        """Count what was seen since the last report, up to `step`."""
        loss, correct = self.sum_of_all(self.window)
        self.window.zero_()
        highest = max(group["lr"] for group in self.optimizer.param_groups)
        self.progress.add(step + 1, loss, correct, learning_rate=highest)

    @torch.no_grad()
    def validate(self, val: LabeledImages) -> tuple[float, float]:
        """Loss in nats and top-1 on validation images, each process measuring every so many-th batch."""
        self.classifier.before_step(1.0)
        self.network.eval()
        # Not the network that DDP wraps: its processes would wait for one another at every batch.
        network = self.average.module if self.average else self.classifier.network
        sums = torch.zeros(2, dtype=torch.float64)
        starts = range(0, len(val.labels), VALIDATION_BATCH)
        for start in starts[self.fabric.global_rank :: self.fabric.world_size]:
            rows = slice(start, start + VALIDATION_BATCH)
            images, labels = (torch.from_numpy(np.array(part[rows])).to(self.fabric.device) for part in val)
            with self.fabric.autocast():
                logits = network(images).float()
            loss = F.cross_entropy(logits, labels, reduction="sum")
            sums += torch.stack([loss, _correct(logits, labels)]).cpu()
        self.network.train()
        loss_sum, correct = self.sum_of_all(sums.float().to(self.fabric.device))
        return loss_sum / len(val.labels), correct / len(val.labels)

    def sum_of_all(self, sums: Tensor) -> list[float]:
        """Sums over all processes."""
        total = self.fabric.all_reduce(sums.clone(), reduce_op="sum")
        assert isinstance(total, Tensor)
        return total.tolist()

    def save(self) -> None:
        """A checkpoint. All processes hold the same state: rank 0 writes."""
        if self.fabric.is_global_zero:
            state = {"network": self.classifier.network.state_dict(), "optimizer": self.optimizer.state_dict()}
            if self.average:
                state["average"] = self.average.state_dict()
            self.progress.save(lambda file: torch.save(state, file))
        self.fabric.barrier()

    def resume(self) -> None:
        """Take over the state of the checkpoint, if there is one."""
        saved = None
        checkpoints = self.progress.checkpoints
        if checkpoints and checkpoints.latest and self.fabric.is_global_zero:
            file, progress = checkpoints.latest
            state = torch.load(file, map_location="cpu", weights_only=True)  # no code can hide in it
            saved = state, progress
        saved = self.fabric.broadcast(saved)  # another machine may have no such file, or an older one
        if saved:
            state, progress = saved
            self.classifier.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average:
                self.average.load_state_dict(state["average"])
            self.progress.resume(progress)


def _correct(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.detach().argmax(1) == labels).sum().float()


def _seed(*numbers: int) -> int:
    """Well mixed seed of 63 bits."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
