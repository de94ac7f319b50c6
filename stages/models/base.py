"""The contract of the three classifiers: fit, logits on raw pictures, save, load."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from stages.common.errors import UserError
from stages.common.files import file_sha256
from stages.common.settings import ClassifierSettings, Compute, FinetuneSettings
from stages.models import DESCRIPTION, settings_class
from stages.models.images import shrink

if TYPE_CHECKING:
    from onnx import ModelProto

    from stages.training.checkpoints import Checkpoints
    from stages.training.head import FeatureCache


OPSET = 18  # of the exported ONNX graphs: old enough for every runtime in use, new enough for LayerNormalization


class Examples(NamedTuple):
    """Pictures with their classes: images (N, H, W, 3) uint8, labels (N,) int64. Memory-mapped arrays are fine."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Reporter:
    """Where fit tells how it goes on.

    on_step(step, metrics): now and then; step counts optimizer steps from 1.
    on_epoch(epoch, metrics): after each pass, epoch from 1; metrics has train_loss, train_top1, val_loss, val_top1
    (losses in nats, shares between 0 and 1) and learning_rate (the highest of all layers), all floats.
    after_step(): after each optimizer step.
    """

    on_step: Callable[[int, dict[str, float]], None]
    on_epoch: Callable[[int, dict[str, float]], None]
    after_step: Callable[[], object] = lambda: None
    is_silent: bool = False  # show no progress bar either

    @classmethod
    def silent(cls) -> Self:
        """One that tells nobody."""
        return cls(lambda step, metrics: None, lambda epoch, metrics: None, is_silent=True)


@dataclass(frozen=True)
class Training:
    """What a training is given; see Classifier.fit."""

    train: Examples
    val: Examples
    epochs: int
    compute: Compute
    reporter: Reporter
    checkpoints: "Checkpoints | None" = None
    features: "FeatureCache | None" = None


class Classifier(ABC):
    """A network with the recipe that trains it.

    Constructing one builds the network and loads its initial weights, so that missing weights are found before any
    data is read (UserError).

    settings: the classifier's own section of params.yaml.
    num_classes: C, the number of logits.
    image_size: side in pixels of the training pictures; pictures of any other size are brought to it first.
    seed: of everything random: initial weights, order of the examples, augmentation, dropout.
    """

    def __init__(self, settings: ClassifierSettings, num_classes: int, image_size: int, seed: int = 0) -> None:
        self.settings = settings
        self.num_classes = num_classes
        self.image_size = image_size
        self.seed = seed
        self.resolved: dict[str, Any] = {}  # what was chosen by looking: weights; by `resolve`, the machine

    @property
    def trains_in_processes(self) -> bool:
        """Whether processes that torchrun or srun started share a training; else the first of them trains alone."""
        return False

    @classmethod  # noqa: B027 - a framework may have nothing to settle
    def configure(cls, compute: Compute) -> None:
        """Settle what a framework fixes once it has started (threads, devices): before the first one is constructed."""

    @abstractmethod
    def resolve(self, compute: Compute) -> None:
        """Look at the machine and note in `resolved` what training will use: device, precision, threads.

        UserError where `compute` asks for what is not there.
        """

    def fit(
        self,
        train: Examples,
        val: Examples,
        *,
        epochs: int,
        compute: Compute,
        reporter: Reporter,
        checkpoints: "Checkpoints | None" = None,
        features: "FeatureCache | None" = None,
    ) -> None:
        """Train on `train` for `epochs` passes and measure on `val` after each; shows a progress bar.

        checkpoints: where to go on from, if there is one, and where to leave others.
        features: where a frozen backbone's features are kept, if the classifier trains a head alone.
        UserError where the loss runs away or memory does not suffice.
        """
        self.resolve(compute)
        self.train(Training(train, val, epochs, compute, reporter, checkpoints, features))

    @abstractmethod
    def train(self, training: Training) -> None:
        """What fit does, once `resolve` has looked at the machine."""

    @abstractmethod
    def logits_of_trained_size(self, images: np.ndarray) -> np.ndarray:
        """Logits (N, C) float32 of images (N, image_size, image_size, 3) uint8, computed in float32."""

    @property
    @abstractmethod
    def num_parameters(self) -> int:
        """How many numbers the network holds, frozen ones and statistics of normalisation layers included."""

    @abstractmethod
    def multiply_adds(self) -> int:
        """Multiply-accumulate operations in the forward pass of one picture."""

    @abstractmethod
    def onnx_graph(self) -> "ModelProto":
        """The network as an ONNX graph, as its framework's exporter gives it.

        Images (N, image_size, image_size, 3) uint8, N left open, to logits (N, C) float32; normalisation and upsampling
        inside. The classifier is of no use for training afterwards.
        """

    @abstractmethod
    def save_weights(self, folder: Path) -> Path:
        """Write the weights into `folder` in a format that cannot execute code; returns the file's path."""

    @abstractmethod
    def load_weights(self, file: Path) -> None:
        """Read what save_weights wrote; UserError where it does not fit this network."""

    def shrink(self, images: np.ndarray) -> np.ndarray:
        """What the network sees: images (N, H, W, 3) uint8 of any size as (N, image_size, image_size, 3) uint8."""
        return shrink(images, self.image_size)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits (N, C) float32 of raw pictures (N, H, W, 3) uint8 of any size."""
        return self.logits_of_trained_size(self.shrink(images))

    def save(self, folder: str | Path) -> None:
        """Write weights and classifier.json into `folder`, which must exist. Same weights, same bytes."""
        folder = Path(folder)
        weights = self.save_weights(folder)
        description = {
            "classifier": self.settings.classifier,
            "settings": self.settings.model_dump(),
            "num_classes": self.num_classes,
            "image_size": self.image_size,
            "weights": weights.name,
            "weights_sha256": file_sha256(weights),
        }
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Rebuild what save wrote; UserError where a file is missing, damaged or does not fit."""
        folder = Path(folder)
        try:
            description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
            # The initial weights are about to be replaced: where they came from does not matter any more.
            settings = description["settings"] | ({"weights": "random"} if "weights" in description["settings"] else {})
            file = folder / Path(description["weights"]).name
            found = file_sha256(file)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder} holds no saved classifier ({error}): train it again") from error
        if found != description["weights_sha256"]:
            raise UserError(
                f"{file} is damaged (sha256 {found[:12]}..., expected {description['weights_sha256'][:12]}...): "
                "restore or train it again"
            )
        classifier = cls(
            settings_class(description["classifier"]).model_validate(settings),
            num_classes=description["num_classes"],
            image_size=description["image_size"],
        )
        classifier.load_weights(file)
        return classifier


class FinetunedClassifier(Classifier):
    """What classifiers with a pretrained backbone share: `finetune: full` trains all of it, `head` a new head alone.

    Stands before an engine's class among a classifier's parents.
    """

    settings: FinetuneSettings

    @abstractmethod
    def backbone_facts(self) -> dict[str, Any]:
        """All that decides the features beside data and code: weights, size of the pictures, precision."""

    @abstractmethod
    def features(self, images: np.ndarray) -> np.ndarray:
        """What the head sees: images (B, H, W, 3) uint8 to (B, D) float32."""

    @abstractmethod
    def set_head(self, weight: np.ndarray, bias: np.ndarray) -> None:
        """Put weight (D, C) and bias (C,), both float32, into the head; features are asked for no more."""

    @property
    def trains_in_processes(self) -> bool:
        return self.settings.finetune == "full" and super().trains_in_processes

    def train(self, training: Training) -> None:
        if self.settings.finetune == "full":
            super().train(training)  # type: ignore[safe-super] # the engine's
            return
        from stages.training.head import fit_head

        self.resolved["head_C"] = fit_head(self, training)
