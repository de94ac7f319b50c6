"""The notebook way for torch, and an optimizer step with nothing around it."""

from collections.abc import Callable
from typing import cast

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from stages.common.settings import Compute
from stages.models.base import Classifier, Examples
from stages.models.torch_engine.model import TorchClassifier
from stages.tools.bench.job import WORKERS
from stages.training.batches import Batch
from stages.training.torch_engine.loop import deterministic

LEARNING_RATE = 1e-3


class Pictures(Dataset[tuple[Tensor, int]]):
    """Pictures one by one, as torchvision's CIFAR100 gives them: transform takes a PIL image."""

    def __init__(self, examples: Examples, transform: Callable[[Image.Image], Tensor]) -> None:
        self.examples = examples
        self.transform = transform

    def __len__(self) -> int:
        return len(self.examples.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.examples.images[index])), int(self.examples.labels[index])


def loader(
    examples: Examples, size: int, mean: list[float], std: list[float], batch_size: int, *, augment: bool
) -> DataLoader[tuple[Tensor, int]]:
    """Batches of pixels (B, 3, size, size) float32 and labels (B,) int64; shuffled, cropped and mirrored: `augment`."""
    side = examples.images.shape[1]
    steps = [transforms.RandomCrop(side, padding=4), transforms.RandomHorizontalFlip()] if augment else []
    if size != side:
        steps.append(transforms.Resize(size, transforms.InterpolationMode.BICUBIC))
    transform = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(mean, std)])
    return DataLoader(Pictures(examples, transform), batch_size, shuffle=augment, num_workers=WORKERS)


def train_epoch(
    network: nn.Module,
    batches: DataLoader[tuple[Tensor, int]],
    optimizer: torch.optim.Optimizer,
    device: str,
    is_enough: Callable[[], bool],
) -> bool:
    """One epoch in float32, or less: is_enough is asked after each step, and its last answer returned."""
    network.train()
    for images, labels in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images.to(device)), labels.to(device))
        loss.backward()
        optimizer.step()
        loss.item()  # notebooks add up the losses of all batches
        if is_enough():
            return True
    return False


def train_as_notebook(classifier: Classifier, examples: Examples, is_enough: Callable[[], bool]) -> int:
    """Train the classifier's network in float32 by AdamW on transformed PIL images, until it is enough.

    Returns how many numbers that network holds.
    """
    ours = cast(TorchClassifier, classifier)
    pixels, network = ours.preprocessing, ours.body.to(ours.training_device)
    mean, std = pixels.mean.flatten().tolist(), pixels.std.flatten().tolist()
    batches = loader(examples, pixels.size, mean, std, ours.settings.batch_size, augment=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    while not train_epoch(network, batches, optimizer, ours.training_device, is_enough):
        pass
    return sum(parameter.numel() for parameter in network.parameters())


def model_step(classifier: Classifier, batch: Batch, compute: Compute) -> Callable[[float], object]:
    """Forward, backward and optimizer step on a batch that lies ready on the device, again and again.

    What comes back takes the share of all steps that are done.
    """
    ours = cast(TorchClassifier, classifier)
    device, precision = ours.training_device, ours.resolved["precision"]
    network = ours.network.to(device).train()
    optimizer = ours.optimizer(precision)
    images = torch.from_numpy(batch.images.copy()).to(device)
    labels = torch.from_numpy(batch.labels).to(device)
    smoothing = getattr(ours.settings, "label_smoothing", 0.0)

    @deterministic(compute.deterministic)  # as in fit: it decides which operations run
    def step(progress: float) -> None:
        ours.before_step(progress)
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = network(images).float()
        F.cross_entropy(logits, labels, label_smoothing=smoothing).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def wait() -> None:
    """Return when the device has done all it was given."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
