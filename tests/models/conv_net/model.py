"""A small convolutional network, as somebody would add it: CONTRIBUTING.md, "How to add a model"."""

from itertools import pairwise

import torch
from torch import nn

from stages.models.torch_engine.model import TorchClassifier
from stages.models.torch_engine.preprocessing import Preprocessing

from .settings import Settings


class ConvNet(TorchClassifier):
    """Three convolutions, each of which halves the image, and a linear head on the mean over all positions."""

    settings: Settings

    def build(self) -> tuple[Preprocessing, nn.Module]:
        width = self.settings.width
        layers: list[nn.Module] = []
        for before, after in pairwise((3, width, 2 * width, 4 * width)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, self.num_classes)]
        self.resolved["weights"] = "random"
        return Preprocessing(self.image_size, mean=(0.5,) * 3, std=(0.25,) * 3), nn.Sequential(*layers, *head)

    def optimizer(self, precision: str) -> torch.optim.Optimizer:
        s = self.settings
        return torch.optim.AdamW(self.body.parameters(), s.lr, weight_decay=s.weight_decay)
