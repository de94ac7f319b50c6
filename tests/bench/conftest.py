"""Small settings from the shipped params.yaml, and a small prepared data set."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.data import dataset
from stages.data.dataset import Prepared
from stages.models import params
from stages.tools.bench.job import Job

TINY: dict[str, dict[str, Any]] = {
    "vit_scratch": {"patch_size": 8, "embed_dim": 24, "depth": 1, "batch_size": 4},
    "vit_transfer": {"backbone": "test_vit", "image_size": 32, "batch_size": 4},
    "mobilenet_transfer": {"variant": "small", "image_size": 32, "batch_size": 4},
}
CLASSES, PICTURES = 5, 120


@pytest.fixture
def tiny_params() -> params.Params:
    shipped = params.read(Path(__file__).parents[2] / "params.yaml")
    models = {name: shipped.model(name) for name in TINY}
    small = {name: type(section).model_validate(section.model_dump() | TINY[name]) for name, section in models.items()}
    compute = {"accelerator": "cpu", "precision": "float32", "threads": 1}
    return shipped.model_copy(update={"models": small, "compute": shipped.compute.model_copy(update=compute)})


@pytest.fixture
def tiny_data(tmp_path) -> Prepared:
    """Pictures in one grey each, 40 times the number of their class."""

    def split(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.sort(np.arange(count) % CLASSES)
        return np.broadcast_to(labels[:, None, None, None] * 40, (count, 32, 32, 3)).astype(np.uint8), labels

    folder = tmp_path / "prepared"
    dataset.write(
        folder,
        tmp_path / "unfinished",
        source="demo",
        class_names=[f"class {index}" for index in range(CLASSES)],
        superclass_names=["all"],
        superclass_of_class=[0] * CLASSES,
        splits={"train": split(PICTURES), "val": split(20), "test": split(5)},
        facts={},
    )
    return Prepared.open(folder)


@pytest.fixture
def job_of(tiny_params, tiny_data, tmp_path) -> Callable[..., Job]:
    """The job of a model, with some of its settings replaced."""

    def make(model: str, **changes: Any) -> Job:
        job = Job.of(tiny_params, model, tiny_data, str(tmp_path))
        job.settings.update(changes)
        return job

    return make
