"""The contract of a classifier: build, logits, weights, export to ONNX."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from onnx import ModelProto

from stages.common.settings import ClassifierSettings, Compute, FinetuneSettings

OPSET = 18  # of the exported ONNX graphs: old enough for every runtime in use, new enough for LayerNormalization


class Classifier(ABC):
    """A network with the recipe that trains it.

    Constructing one builds the network and loads its initial weights, so that missing weights are found before any
    data is read (UserError).

    settings: the classifier's own section of params.yaml.
    num_classes: C, the number of logits.
    image_size: S, the side in pixels of the images it takes.
    seed: of everything random: initial weights, order of the examples, augmentation, dropout.
    resolved: what was found out about this training: origin of the weights, device, precision, threads.
    """

    engine: ClassVar[Literal["torch_engine", "keras_engine"]]
    """The folder of its framework, here and in stages/training."""

    def __init__(self, settings: ClassifierSettings, num_classes: int, image_size: int, seed: int = 0) -> None:
        self.settings = settings
        self.num_classes = num_classes
        self.image_size = image_size
        self.seed = seed
        self.resolved: dict[str, Any] = {}

    @classmethod
    @abstractmethod
    def configure(cls, compute: Compute) -> None:
        """Settle what a framework fixes once it has started (threads, devices): before the first one is constructed."""

    @abstractmethod
    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits (N, C) float32 of images (N, S, S, 3) uint8, computed in float32."""

    @property
    @abstractmethod
    def num_parameters(self) -> int:
        """How many numbers the network holds, frozen ones and statistics of normalisation layers included."""

    @abstractmethod
    def multiply_adds(self) -> int:
        """Multiply-accumulate operations in the forward pass of one image."""

    @abstractmethod
    def onnx_graph(self) -> ModelProto:
        """The network as an ONNX graph, as its framework's exporter gives it.

        Images (N, S, S, 3) uint8, N left open, to logits (N, C) float32; normalisation and upsampling inside. The
        classifier is of no use for training afterwards.
        """

    @abstractmethod
    def save_weights(self, folder: Path) -> Path:
        """Write the weights into `folder` in a format that cannot execute code; returns the file's path."""

    @abstractmethod
    def load_weights(self, file: Path) -> None:
        """Read what save_weights wrote; UserError where it does not fit this network."""


class FinetunedClassifier(Classifier):
    """What classifiers with a pretrained backbone share: `finetune: full` trains all of it, `head` a new head alone."""

    settings: FinetuneSettings

    @abstractmethod
    def backbone_facts(self) -> dict[str, Any]:
        """All that decides the features beside data and code: weights, size of the images, precision."""

    @abstractmethod
    def features(self, images: np.ndarray) -> np.ndarray:
        """What the head sees: images (B, H, W, 3) uint8 to (B, D) float32."""

    @abstractmethod
    def set_head(self, weight: np.ndarray, bias: np.ndarray) -> None:
        """Put weight (D, C) and bias (C,), both float32, into the head; features are not needed after it."""
