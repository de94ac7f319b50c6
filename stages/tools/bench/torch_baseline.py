"""The baseline for torch: what tutorials do."""

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from stages.tools.bench.training import WORKERS
from stages.training.batches import LabeledImages

LEARNING_RATE = 1e-3
PADDING = 4  # pixels


class Images(Dataset[tuple[Tensor, int]]):
    """Images one by one, as torchvision's CIFAR100 gives them."""

    def __init__(self, examples: LabeledImages, transform: Callable[[Image.Image], Tensor]) -> None:
        self.examples = examples
        self.transform = transform

    def __len__(self) -> int:
        return len(self.examples.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.examples.images[index])), int(self.examples.labels[index])


def loader(examples: LabeledImages, size: int, mean: list[float], std: list[float], batch_size: int) -> DataLoader[Any]:
    """Shuffled batches of pixels (B, 3, size, size) float32 and labels (B,) int64, cropped, mirrored, normalised."""
    side = examples.images.shape[1]
    steps = [transforms.RandomCrop(side, padding=PADDING), transforms.RandomHorizontalFlip()]
    if size != side:
        steps.append(transforms.Resize(size, transforms.InterpolationMode.BICUBIC))
    transform = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(mean, std)])
    return DataLoader(Images(examples, transform), batch_size, shuffle=True, num_workers=WORKERS)


def train(classifier: Any, examples: LabeledImages, is_enough: Callable[[], bool]) -> None:
    """Train the classifier's network in float32 by AdamW on transformed PIL images, until it is enough."""
    pixels, device = classifier.preprocessing, classifier.training_device
    network = classifier.body.to(device).train()
    mean, std = pixels.mean.flatten().tolist(), pixels.std.flatten().tolist()
    batches = loader(examples, pixels.size, mean, std, classifier.settings.batch_size)
    train_until(is_enough, network, batches, device)


def train_until(
    is_enough: Callable[[], bool], network: nn.Module, batches: DataLoader[Any], device: str
) -> torch.optim.Optimizer:
    """Train a network on its device in float32 by AdamW with a constant rate; returns the optimizer."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    while True:
        for images, labels in batches:
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images.to(device)), labels.to(device))
            loss.backward()
            optimizer.step()
            loss.item()  # notebooks add up the losses of all batches
            if is_enough():
                return optimizer


def synchronize() -> None:
    """Return when the device has done all it was given."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
