"""Time to the accuracy that the notebook recipe of a scratch ViT gets from one epoch."""

import time
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch.utils.data import DataLoader

from stages.models.base import Examples, Reporter
from stages.tools.bench import torch_way
from stages.tools.bench.job import Job

DEPTH, BATCH = 4, 64  # of the notebook
VAL_PICTURES = 2_000  # at most: they are looked at every few steps
NEUTRAL = [0.5, 0.5, 0.5]  # mean and deviation, as notebooks take them


def notebook(job: Job) -> dict[str, Any]:
    """Train the notebook's ViT for its one epoch: a plain one with CLS token, as wide as ours.

    seconds: of the epoch; top1: on validation afterwards.
    """
    classifier, _ = job.start()
    s: Any = classifier.settings
    device = classifier.training_device  # type: ignore[attr-defined]
    torch.manual_seed(job.seed)
    network = VisionTransformer(
        img_size=job.image_size,
        patch_size=s.patch_size,
        num_classes=job.num_classes,
        embed_dim=s.embed_dim,
        depth=DEPTH,
        num_heads=s.num_heads,
        mlp_ratio=s.mlp_ratio,
    ).to(device)

    def batches(examples: Examples, *, augment: bool) -> DataLoader:
        return torch_way.loader(examples, job.image_size, NEUTRAL, NEUTRAL, BATCH, augment=augment)

    optimizer = torch.optim.AdamW(network.parameters(), lr=torch_way.LEARNING_RATE)
    started = time.perf_counter()
    torch_way.train_epoch(network, batches(job.examples("train"), augment=True), optimizer, device, lambda: False)
    torch_way.wait()
    seconds = time.perf_counter() - started
    network.eval()
    correct = 0
    val = _some(job.examples("val"))
    with torch.inference_mode():
        for images, labels in batches(val, augment=False):
            correct += int((network(images.to(device)).argmax(1).cpu() == labels).sum())
    return {"seconds": seconds, "top1": correct / len(val.labels), "val_pictures": len(val.labels)}


class Reached(Exception):  # noqa: N818 - it is none
    """Ends a training that has got where it should."""


def ours(job: Job, target: float) -> dict[str, Any]:
    """Train for one epoch, or until validation passes the top-1 `target`, looked at whenever `fit` reports.

    seconds: until then, validation left out; None where it did not get there. step, top1: of the last look.
    """
    classifier, compute = job.start()
    val = _some(job.examples("val"))
    seen: dict[str, Any] = {"seconds": None, "step": 0, "top1": 0.0}
    looking = 0.0

    def look(step: int, metrics: dict[str, float]) -> None:
        nonlocal looking
        torch_way.wait()
        before = time.perf_counter()
        top1 = float((classifier.logits(val.images).argmax(1) == val.labels).mean())
        classifier.network.train()  # type: ignore[attr-defined]  # as fit left it
        seen.update(step=step, top1=top1)
        if top1 > target:
            seen["seconds"] = before - started - looking
            raise Reached
        looking += time.perf_counter() - before

    started = time.perf_counter()
    try:
        train = job.examples("train")
        classifier.fit(train, val, epochs=1, compute=compute, reporter=Reporter(look, lambda epoch, metrics: None))
    except Reached:
        pass
    return seen


def _some(examples: Examples) -> Examples:
    """At most VAL_PICTURES, spread over all classes: the prepared ones are in the order of their classes."""
    rows = np.linspace(0, len(examples.labels) - 1, min(VAL_PICTURES, len(examples.labels))).round().astype(int)
    return Examples(np.asarray(examples.images[rows]), examples.labels[rows])
