"""A tiny linear classifier in a package like stages/classifiers, and a tracking store for each test."""

import json
import shutil
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from safetensors.numpy import save_file

from stages import classifiers
from stages.tracking.champion import Validation
from stages.tracking.explorer import Explorer
from stages.tracking.package import Package
from stages.tracking.registry import Entry
from stages.tracking.replay import Training
from stages.tracking.runs import DatasetUsed
from stages.tracking.store import Store

from .server import Server

CLASSIFIER = """
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load_file, save_file

    from ..classifier import Classifier
    from ..errors import ClassifierError

    FACTOR = 1


    class Tiny(Classifier):
        def __init__(self, settings, num_classes, image_size, seed=0):
            super().__init__(settings, num_classes, image_size, seed)
            self.weights = np.zeros((image_size * image_size * 3, num_classes), np.float32)

        def resolve(self, compute):
            pass

        def train(self, training):
            import torch  # a library for training only

        def logits_of_trained_size(self, images):
            return FACTOR * images.reshape(len(images), len(self.weights)).astype(np.float32) @ self.weights

        num_parameters = 0

        def multiply_adds(self):
            return 0

        def save_weights(self, folder):
            save_file({"weights": self.weights}, folder / "weights.safetensors")
            return folder / "weights.safetensors"

        def load_weights(self, file):
            try:
                self.weights = load_file(file)["weights"]
            except (SafetensorError, OSError) as error:
                raise ClassifierError(f"{file} is no readable safetensors file ({error})") from error
"""
SIDE = 4
CLASSES = ["apple", "bear", "clock"]
VAL_PICTURES = 1000
REFERENCE_SEED = 1  # the model with these weights names four of five validation pictures right; others one of three


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")


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


@pytest.fixture(scope="session")
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One `mlflow server` for all tests that leave it running; starting one takes seconds."""
    with Server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A copy of the classifiers package with one classifier, `tiny`."""
    folder = tmp_path / "code"
    original = Path(classifiers.__file__).parent
    shutil.copytree(original, folder, ignore=lambda at, names: [name for name in names if (Path(at) / name).is_dir()])
    (folder / "tiny").mkdir()
    (folder / "tiny" / "__init__.py").write_text("")
    (folder / "tiny" / "settings.py").write_text(
        "from ..settings import ClassifierSettings\n\n\nclass Settings(ClassifierSettings):\n    pass\n"
    )
    (folder / "tiny" / "classifier.py").write_text(textwrap.dedent(CLASSIFIER))
    return folder


@pytest.fixture
def make_entry(tmp_path: Path, code: Path) -> Callable[..., Entry]:
    """Makes a trained model: make_entry("a", val=0.5, test=0.4, seed=0); right on the first `val` of the pictures."""

    def make(model: str = "a", val: float = 0.5, test: float = 0.5, seed: int = 0, run_id: str | None = None) -> Entry:
        folder = tmp_path / f"{model}-{seed}"
        folder.mkdir(exist_ok=True)
        save_file({"weights": weights(seed)}, folder / "weights.safetensors")
        weights_sha256 = sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
        settings = {"classifier": "tiny", "epochs": None, "batch_size": 1, "crop_padding": 0, "flip": False}
        description = {
            "classifier": "tiny",
            "settings": settings,
            "num_classes": len(CLASSES),
            "image_size": SIDE,
            "weights": "weights.safetensors",
            "weights_sha256": weights_sha256,
        }
        (folder / "classifier.json").write_text(json.dumps(description))
        record = {
            "model": model,
            "training_id": f"training-{model}-{seed}",
            "run_id": run_id,
            "started": "2024-02-03T04:05:06.000+00:00",
            "ended": "2024-02-03T04:07:06.000+00:00",
            "params": {"lr": 0.1},
            "tags": {"git_commit": "abc"},
            "dataset": {"name": "demo", "sha256": "d" * 64, "counts": {"train": 9}, "source": "data/prepared"},
            "weights_sha256": weights_sha256,
        }
        (folder / "run.json").write_text(json.dumps(record))
        (folder / "params.yaml").write_text("lr: 0.1  # as it was")
        (folder / "history.csv").write_text(f"epoch,seconds,val_top1,learning_rate\n1,50.5,0.1,0.01\n2,100,{val},0\n")
        about = {
            "model": model,
            "source": "demo",
            "class_names": CLASSES,
            "superclass_names": ["thing", "being"],
            "superclass_of_class": [0, 1, 0],
            "image_size": SIDE,
            "temperature": 1.0,
            "data_sha256": "d" * 64,
        }
        metrics = {"val": {"top1": val}, "test": {"top1": test}}
        right = np.arange(VAL_PICTURES) < round(val * VAL_PICTURES)
        return Entry(Package(folder, code, pictures(2), about, metrics), Training.read(folder), metrics, right)

    return make


@pytest.fixture
def bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a pickle of bombs.py leaves its mark if anybody reads it."""
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    return tmp_path / "exploded"


@pytest.fixture
def explorer(tmp_path: Path) -> Explorer:
    np.save(tmp_path / "test_images.npy", pictures(5))
    np.save(tmp_path / "test_labels.npy", np.arange(5))
    dataset = {
        "source": "demo",
        "class_names": CLASSES,
        "superclass_names": ["thing"],
        "superclass_of_class": [0, 0, 0],
    }
    answers = {model: np.full((5, 3), share, np.float32) for model, share in (("a", 1 / 3), ("b", 0.25))}
    return Explorer(dataset, "d" * 64, tmp_path / "test_images.npy", tmp_path / "test_labels.npy", answers)


@pytest.fixture
def dataset() -> DatasetUsed:
    return DatasetUsed("demo", "d" * 64, {"train": 9, "val": 3}, "data/prepared")


def weights(seed: int) -> np.ndarray:
    """Of the tiny classifier."""
    return np.random.default_rng(seed).normal(size=(SIDE * SIDE * 3, len(CLASSES))).astype(np.float32) / 1000


def validation() -> Validation:
    """Pictures and labels that only the model of REFERENCE_SEED has learnt, all but every fifth."""
    classes = _classes(REFERENCE_SEED)
    labels = np.where(np.arange(VAL_PICTURES) % 5 == 0, (classes + 1) % len(CLASSES), classes)
    return Validation(pictures(VAL_PICTURES), labels, CLASSES, "d" * 64)


def answers(seed: int) -> np.ndarray:
    """Which of them the model with these weights really names right, (N,) bool."""
    return _classes(seed) == validation().labels


def _classes(seed: int) -> np.ndarray:
    return (pictures(VAL_PICTURES).reshape(VAL_PICTURES, -1).astype(np.float32) @ weights(seed)).argmax(axis=1)


def pictures(count: int, side: int = SIDE) -> np.ndarray:
    """Random pictures (count, side, side, 3) uint8."""
    return np.random.default_rng(7).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)
