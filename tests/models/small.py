"""Small classifiers, and images that they can learn."""

from pathlib import Path
from typing import Any

import numpy as np

from stages.common.settings import ClassifierSettings, Compute
from stages.models import classifier_class, params
from stages.models.base import Classifier
from stages.training.batches import LabeledImages

CPU = Compute(accelerator="cpu", precision="float32", threads=1)
CLASSES = 4
SMALL: dict[str, dict[str, Any]] = {
    "vit_scratch": {"embed_dim": 24, "depth": 1, "num_heads": 2, "patch_size": 8, "batch_size": 16},
    "vit_transfer": {"backbone": "test_vit", "weights": "random", "image_size": 32, "batch_size": 16, "lr": 1e-3},
    "mobilenet_transfer": {"variant": "small", "weights": "random", "image_size": 32, "batch_size": 16},
}


def settings_of(model: str, **changes: Any) -> ClassifierSettings:
    """The shipped settings of a model, made small, with some of them replaced."""
    shipped = params.read(Path(__file__).parents[2] / "params.yaml").model(model)
    return type(shipped).model_validate(shipped.model_dump() | SMALL[model] | changes)


def classifier(model: str, seed: int = 0, num_classes: int = CLASSES, **changes: Any) -> Classifier:
    """A small classifier of images of 32 px, its framework set up for one thread of the CPU."""
    kind = classifier_class(model)
    kind.configure(CPU)
    return kind(settings_of(model, **changes), num_classes, 32, seed)


def tinted(count: int, seed: int = 0) -> LabeledImages:
    """Noise whose class is its tint, red, green, blue or none: (count, 32, 32, 3) uint8."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    tints = np.array([[120, 0, 0], [0, 120, 0], [0, 0, 120], [0, 0, 0]], np.uint8)
    images = rng.integers(0, 100, (count, 32, 32, 3), dtype=np.uint8) + tints[labels][:, None, None]
    return LabeledImages(images, labels)
