"""Tiny models exported to ONNX, with the record of their training, and a tracking store for each test."""

import json
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.pyfunc import PyFuncModel, load_model

from stages.common.files import file_sha256
from stages.inference.exported import Exported
from stages.tracking import registry
from stages.tracking.gate import Gate
from stages.tracking.package import Package, image_hashes
from stages.tracking.registered_model import Decision, GateSplit, RegisteredModel
from stages.tracking.registry import Entry
from stages.tracking.replay import TrainingRecord
from stages.tracking.store import Store
from tests import linear_onnx

SIDE = 4
CLASSES = ["apple", "bear", "clock"]
GATE_IMAGES = 1000
REFERENCE_SEED = 1  # the model with these weights is right on four of five gate images; others on one of three
ABOUT = {
    "source": "demo",
    "class_names": CLASSES,
    "superclass_names": ["thing", "being"],
    "superclass_of_class": [0, 1, 0],
    "square": "crop",
    "temperature": 2.0,
    "conformal": {"90": 0.5, "95": 0.9},
    "ood": {"score": "probability", "threshold": 0.4, "reason": None},
    "data_sha256": "d" * 64,
}


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all tables: creating one takes seconds, copying it does not."""
    folder = tmp_path_factory.mktemp("database")
    Store.of_repository(folder).client()
    return folder / "mlflow.db"


@pytest.fixture
def root(tmp_path: Path, empty_database: Path) -> Path:
    """A repository's root with an empty tracking database."""
    folder = tmp_path / "repository"
    folder.mkdir()
    shutil.copy(empty_database, folder)
    return folder


@pytest.fixture
def store(root: Path) -> Store:
    return Store.of_repository(root)


@pytest.fixture
def client(store: Store) -> MlflowClient:
    return store.client()


class DemoModel:
    """The registered model `demo-classifier` of a store, and what tests do with it.

    folder: holds the files of its models. comparison: files of the run that compares them, by their path in it.
    """

    name = "demo-classifier"

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.client, self.folder = store, store.client(), folder
        folder.mkdir(exist_ok=True)
        self.comparison = {"comparison.md": folder / "comparison.md", "plots/top1.png": folder / "top1.png"}
        for file in self.comparison.values():
            file.write_text("content")

    def entry(
        self, model: str = "a", val: float = 0.5, test: float = 0.5, seed: int = 0, gate: float | None = None
    ) -> Entry:
        """An exported model, right on the first `gate` of the gate images, where not given as many as on val."""
        folder = self.folder / f"{model}-{seed}"
        folder.mkdir(exist_ok=True)
        exported = export(folder, model, seed)
        write_training(folder, model, exported.description["weights_sha256"], val)
        metrics = {
            split: {"top1": top1, "top1_low": round(top1 - 0.01, 6), "top1_high": round(top1 + 0.01, 6)}
            for split, top1 in (("val", val), ("test", test))
        }
        package = Package(exported, random_images(2), ABOUT, metrics)
        right = np.arange(GATE_IMAGES) < round((val if gate is None else gate) * GATE_IMAGES)
        return Entry(package, TrainingRecord.read(folder), right, n_test=2000)

    def measured(self, model: str, seed: int) -> Entry:
        """The same, right on those images on which it is when it is loaded from the registry and run."""
        right = _classes(seed) == gate_split().labels
        return replace(self.entry(model, val=float(right.mean()), seed=seed), right=right)

    @property
    def reference(self) -> Entry:
        """Right on four of five of the gate images."""
        return self.measured("old", REFERENCE_SEED)

    def register(self, *entries: Entry, gate: Gate | None = None, **changed: Any) -> Decision:
        """changed: split, seen."""
        settings = {"seen": image_hashes(random_images(3)), "split": gate_split(), "gate": gate or Gate(), **changed}
        return registry.register(self.store, "demo", self.name, entries, self.comparison, **settings)

    def roll_back(self, to: str | None = None) -> str:
        with self.store.exclusive() as client:
            return RegisteredModel(client, self.name).roll_back(to)

    def load_champion(self) -> PyFuncModel:
        with self.store.exclusive():
            return load_model(f"models:/{self.name}@champion")

    def version(self, number: str) -> ModelVersion:
        return self.client.get_model_version(self.name, number)

    @property
    def aliases(self) -> dict[str, str]:
        return RegisteredModel(self.client, self.name).aliases

    @property
    def history(self) -> list[tuple[str, str]]:
        """The tag, as the app reads it: versions, and who made them champion."""
        history = json.loads(self.client.get_registered_model(self.name).tags["champion_history"])
        assert [entry["since"] for entry in history] == sorted(entry["since"] for entry in history)
        return [(entry["version"], entry["by"]) for entry in history]


@pytest.fixture
def demo(store: Store, tmp_path: Path) -> DemoModel:
    return DemoModel(store, tmp_path / "files")


def export(folder: Path, model: str, seed: int, precision: str = "float32", name: str = "model.onnx") -> Exported:
    """What the stage `export` would know of a tiny network with weights(seed), whose ONNX file it writes."""
    file = linear_onnx.write(folder / name, weights(seed))
    description = {
        "weights_sha256": sha256(weights(seed).tobytes()).hexdigest(),
        "image_size": SIDE,
        "serves": precision,
        "files": {precision: {"file": str(file), "sha256": file_sha256(file)}},  # an absolute path leads out of data/
    }
    return Exported(model, seed, description)


def write_training(folder: Path, model: str, weights_sha256: str, val: float = 0.5) -> None:
    """What the stage `train` tells of a training that ended with such weights."""
    record = {
        "model": model,
        "training_id": f"training-{folder.name}",
        "run_id": None,
        "started": "2024-02-03T04:05:06.000+00:00",
        "ended": "2024-02-03T04:07:06.000+00:00",
        "params": {"lr": 0.1},
        "tags": {"git_commit": "abc"},
        "dataset": {"name": "demo", "sha256": "d" * 64, "counts": {"train": 9}, "source": "data/prepared"},
        "weights_sha256": weights_sha256,
    }
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "params.yaml").write_text("lr: 0.1  # as it was")
    (folder / "steps.csv").write_text("step,seconds,train_loss\n20,10.5,4.5\n40,20,3.5\n")
    (folder / "history.csv").write_text(f"epoch,seconds,val_top1,learning_rate\n1,50.5,0.1,0.01\n2,100,{val},0\n")


def with_about(entry: Entry, **changes: Any) -> Entry:
    """The same model, its metadata changed: another package."""
    return replace(entry, package=replace(entry.package, about={**entry.package.about, **changes}))


def weights(seed: int) -> np.ndarray:
    """Of the tiny network, (pixels, classes)."""
    return np.random.default_rng(seed).normal(size=(SIDE * SIDE * 3, len(CLASSES))).astype(np.float32) / 1000


def gate_split() -> GateSplit:
    """Images and labels that only the model of REFERENCE_SEED has learnt, all but every fifth."""
    classes = _classes(REFERENCE_SEED)
    labels = np.where(np.arange(GATE_IMAGES) % 5 == 0, (classes + 1) % len(CLASSES), classes)
    return GateSplit(random_images(GATE_IMAGES), labels, CLASSES, "d" * 64)


def _classes(seed: int) -> np.ndarray:
    return (random_images(GATE_IMAGES).reshape(GATE_IMAGES, -1).astype(np.float32) @ weights(seed)).argmax(axis=1)


def random_images(count: int, side: int = SIDE) -> np.ndarray:
    """Random images (count, side, side, 3) uint8."""
    return np.random.default_rng(7).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
