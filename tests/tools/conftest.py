"""Small settings from the shipped params.yaml, and a small prepared data set."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.common import paths
from stages.data import dataset
from stages.data.dataset import Prepared
from stages.models import params

TINY: dict[str, dict[str, Any]] = {
    "vit_scratch": {"patch_size": 8, "embed_dim": 24, "depth": 1, "batch_size": 4},
    "mobilenet_transfer": {"variant": "small", "image_size": 32, "batch_size": 4, "weights": "random"},
}
CLASSES = 5


@pytest.fixture
def tiny_params() -> params.Params:
    shipped = params.read(Path(__file__).parents[2] / "params.yaml")
    models = {name: shipped.model(name).model_copy(update=changes) for name, changes in TINY.items()}
    compute = {"accelerator": "cpu", "precision": "float32", "threads": 1}
    return shipped.model_copy(update={"models": models, "compute": shipped.compute.model_copy(update=compute)})


@pytest.fixture
def tiny_data(tmp_path, monkeypatch) -> Prepared:
    """In the current folder: images in one grey each, 40 times the number of their class."""
    monkeypatch.chdir(tmp_path)

    def split(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.sort(np.arange(count) % CLASSES)
        return np.broadcast_to(labels[:, None, None, None] * 40, (count, 32, 32, 3)).astype(np.uint8), labels

    dataset.write(
        paths.PREPARED,
        source="demo",
        class_names=[f"class {index}" for index in range(CLASSES)],
        superclass_names=["all"],
        superclass_of_class=[0] * CLASSES,
        splits={"train": split(120), "val": split(20), "gate": split(20), "test": split(5)},
        facts={},
    )
    return Prepared.open(paths.PREPARED)
