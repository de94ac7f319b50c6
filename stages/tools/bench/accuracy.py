"""How soon a scratch ViT is as accurate as the notebook's: by this project, and by the recipe of the baseline."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from stages.common import paths
from stages.common.errors import UserError
from stages.common.files import read_json
from stages.models.params import Params
from stages.tools.bench import torch_baseline, training
from stages.tools.bench.rounds import in_fresh_process, interleave
from stages.training import fit
from stages.training.batches import LabeledImages

CLASSIFIER, NOTEBOOK = "vit_scratch", "ViT from scratch"
POINTS = 20  # of an epoch, evenly in images, at which to validate
VALIDATION_BATCH = 250  # images
# The baseline: a plain ViT with class token, as tutorials build it.
RECIPE: dict[str, Any] = {"patch_size": 4, "embed_dim": 192, "depth": 4, "num_heads": 3, "mlp_ratio": 4.0}
BATCH_SIZE = 64
NEUTRAL = 0.5  # mean and deviation of each channel


class Reached(Exception):  # noqa: N818 - it is none
    """Ends a training that was followed for long enough."""


class Curve:
    """Validates at POINTS points of an epoch; the clock stands still meanwhile.

    To be called after each of `steps` steps; returns whether `target` (share) is reached or the epoch over.
    rows: of each point images, seconds and top1 (share).
    """

    def __init__(self, forward: Callable[[Tensor], Tensor], network: nn.Module, val: LabeledImages, target: float):
        """forward: uint8 images (B, S, S, 3) to logits (B, C), by the network, on its device."""
        self.forward, self.network, self.val, self.target = forward, network, val, target
        self.step, self.rows = 0, list[dict[str, float]]()

    def start(self, images: int, batch_size: int) -> None:
        """Start the clock of an epoch."""
        self.images, self.batch_size, self.steps = images, batch_size, -(-images // batch_size)
        self.points = {round(self.steps * point / POINTS) for point in range(1, POINTS + 1)}
        self.started = time.perf_counter()

    def __call__(self) -> bool:
        self.step += 1
        if self.step not in self.points:
            return False
        torch_baseline.synchronize()
        stopped = time.perf_counter()
        seen, top1 = min(self.step * self.batch_size, self.images), self.top1()
        self.rows.append({"images": seen, "seconds": stopped - self.started, "top1": top1})
        self.started += time.perf_counter() - stopped
        return top1 >= self.target or self.step == self.steps

    def result(self, facts: dict[str, Any]) -> dict[str, Any]:
        """What is kept of a training: facts about it, the curve and its end."""
        end = {key: self.rows[-1][key] for key in ("seconds", "top1")}
        return {"facts": facts, "curve": self.rows, "val_images": len(self.val.labels), **end}

    @torch.no_grad()
    def top1(self) -> float:
        """On validation, in float32."""
        self.network.eval()
        device, correct = next(self.network.parameters()).device, 0
        for start in range(0, len(self.val.labels), VALIDATION_BATCH):
            images, labels = (torch.tensor(part[start : start + VALIDATION_BATCH]).to(device) for part in self.val)
            correct += int((self.forward(images).argmax(1) == labels).sum())
        self.network.train()
        return correct / len(self.val.labels)


def measure(settings: Params, scratch: Path, rounds: int) -> dict[str, Any]:
    """What reports/time_to_accuracy.json holds, of as many seeds as there are rounds."""
    name = next((name for name, model in settings.models.items() if model.classifier == CLASSIFIER), None)
    if name is None:
        raise UserError(f"{paths.PARAMS} has no model of the classifier {CLASSIFIER}: name training, serving or both")
    notebooks = read_json(paths.NOTEBOOKS, f"`git checkout {paths.NOTEBOOKS}` restores it")
    target, settings = notebooks["top1"][NOTEBOOK], training.on_one_device(settings)
    ways = {"baseline": (baseline, settings), "ours": (ours, settings)}
    if in_fresh_process(training.precision, settings, name)["precision"] != "float32":
        ways["float32"] = ours, training.in_float32(settings)
    seeds = range(settings.seed, settings.seed + rounds)
    measurements = [
        (way, f"seed {seed}", function, own.model_copy(update={"seed": seed}), name, target, scratch)
        for seed in seeds
        for way, (function, own) in ways.items()
    ]
    found = interleave(measurements, 1)
    runs = {way: {str(seed): found[way][0][f"seed {seed}"][0] for seed in seeds} for way in ways}
    return {"model": name, "target": target, "source": notebooks["source"], "points": POINTS, "ways": runs}


def baseline(settings: Params, name: str, target: float, scratch: Path) -> dict[str, Any]:
    """Train the baseline's network by its recipe, for one epoch or until validation reaches `target` (share)."""
    classifier, prepared = training.start(settings, name, {})
    device, size = classifier.training_device, prepared.image_size
    examples = LabeledImages(*prepared.split("train"))
    torch.manual_seed(settings.seed)
    network = VisionTransformer(img_size=size, num_classes=len(prepared.class_names), **RECIPE).to(device).train()
    batches = torch_baseline.loader(examples, size, [NEUTRAL] * 3, [NEUTRAL] * 3, BATCH_SIZE)

    def forward(images: Tensor) -> Tensor:
        return network((images.permute(0, 3, 1, 2) / 255 - NEUTRAL) / NEUTRAL)

    curve = Curve(forward, network, LabeledImages(*prepared.split("val")), target)
    curve.start(len(examples.labels), BATCH_SIZE)
    optimizer = torch_baseline.train_until(curve, network, batches, device)
    facts = {**RECIPE, "pool": "cls", "batch_size": BATCH_SIZE, "crop_padding": torch_baseline.PADDING, "flip": True}
    facts |= {"pixel_mean": [NEUTRAL], "schedule": "constant", "precision": "float32", "images": "one by one"}
    return curve.result(_facts(network, optimizer) | facts)


def ours(settings: Params, name: str, target: float, scratch: Path) -> dict[str, Any]:
    """Train by `fit`, tracked as in the stage `train`, for one epoch or until validation reaches `target` (share)."""
    classifier, prepared = training.start(settings, name, {})
    examples, val = LabeledImages(*prepared.split("train")), LabeledImages(*prepared.split("val"))
    curve, few = (
        Curve(classifier.network, classifier.network, val, target),
        LabeledImages(val.images[:1], val.labels[:1]),
    )

    def after_step() -> None:
        if curve():
            raise Reached

    with training.tracked(scratch, name) as reporter, suppress(Reached):
        curve.start(len(examples.labels), classifier.settings.batch_size)
        reporter = replace(reporter, after_step=after_step)
        fit(classifier, examples, few, epochs=1, compute=settings.compute, reporter=reporter)
    optimizer = classifier.optimizer(classifier.resolved["precision"])
    facts = classifier.settings.model_dump(exclude={"classifier", "epochs", "muon_lr", "adamw_lr", "weight_decay"})
    mean = [round(value, 3) for value in classifier.preprocessing.mean.flatten().tolist()]
    facts |= {"pixel_mean": mean, "schedule": f"{classifier.schedule} decay", "images": "in batches"}
    facts |= _facts(classifier.body, optimizer) | {"precision": classifier.resolved["precision"]}
    return curve.result(facts)


def _facts(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    groups = optimizer.param_groups
    return {
        "network": f"{type(network).__module__}.{type(network).__name__}",
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "optimizer": type(optimizer).__name__,
        "learning_rates": sorted({group["lr"] for group in groups}),
        "weight_decays": sorted({group["weight_decay"] for group in groups}),
    }
