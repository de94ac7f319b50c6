"""Real registries with tiny models, and image files.

These tests run where torch, TensorFlow and the pipeline's other libraries are absent: of stages they import
stages.inference and stages.common alone.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import streamlit as st
from mlflow import MlflowClient
from mlflow.models import ModelSignature
from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from PIL import Image

from gui import comparison, process, registry
from gui.comparison import LoggedComparison
from gui.registry import HISTORY, Model
from stages.inference import onnx_model
from tests import linear_onnx
from tests.gui import small_comparison
from tests.gui.small_comparison import COLOURS, SIZE

RED = (225, 25, 35)
BLUE = (30, 60, 220)
METADATA = {
    "format": onnx_model.FORMAT,
    "source": "cifar100",
    "class_names": ["red_apple", "green_leaf", "blue_sea", "white_rabbit", "black_cat", "yellow_lemon"],
    "superclass_names": ["plants", "things & waters", "animals"],
    "superclass_of_class": [0, 0, 1, 2, 2, 0],
    "image_size": SIZE,
    "square": "crop",
    "temperature": 20.0,
    "conformal": {"90": 0.8, "95": 0.95},
    "ood": {"score": "probability", "threshold": 0.4, "reason": None},
    "precision": "float32",
    "metrics": {"val": {"top1": 0.7}, "test": {"top1": 0.640, "top5": 0.9}},
}
Register = Callable[..., int]
LogComparison = Callable[..., str]

process.set_up()


def image_file(colour: tuple[int, int, int] = RED, size: tuple[int, int] = (60, 40), kind: str = "PNG") -> bytes:
    """An image of one colour as the bytes of a file."""
    return as_file(Image.new("RGB", size, colour), kind)


def as_file(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """An image as the bytes of a file."""
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def _main_module_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamlit makes the app Python's main module: processes started by later tests would begin by running it."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracking database without models; made once, because its migrations take seconds."""
    database = tmp_path_factory.mktemp("empty") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{database}").search_registered_models()
    return database


@pytest.fixture
def tracking_uri(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a fresh database, which the app uses in this test."""
    uri = f"sqlite:///{shutil.copy(empty_database, tmp_path / 'mlflow.db')}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for variable in ("MODEL_NAME", "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # registering would write to stderr, too
    # Set, so that what the app sets is undone; true, so that a test shows that the app forbids it.
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    st.cache_resource.clear()
    return uri


@pytest.fixture
def client(tracking_uri: str) -> MlflowClient:
    """Of that database."""
    return MlflowClient(tracking_uri=tracking_uri)


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that names the nearest of COLOURS to an image's mean colour."""
    return linear_onnx.of_colours(tmp_path_factory.mktemp("onnx") / "model.onnx", COLOURS, SIZE)


def package(folder: Path, onnx_file: Path, without: Sequence[str] = (), **metadata: Any) -> dict[str, Any]:
    """Save a model as a registered version of the pipeline holds it; returns its metadata.

    without: keys left out of METADATA; metadata replaces what is there.
    """
    about = METADATA | {"onnx_sha256": hashlib.sha256(onnx_file.read_bytes()).hexdigest()} | metadata
    about = {key: value for key, value in about.items() if key not in without}
    images = Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))])
    probabilities = Schema([TensorSpec(np.dtype(np.float32), (-1, 6))])
    params = ParamSchema([ParamSpec("top_k", DataType.long, 0), ParamSpec("square", DataType.string, "")])
    signature = ModelSignature(images, probabilities, params)
    signature._is_signature_from_type_hint = True  # as in stages/tracking/package.py
    mlflow.pyfunc.save_model(
        folder,
        python_model=onnx_model.__file__,
        artifacts={"model": str(onnx_file)},
        metadata=about,
        signature=signature,
        pip_requirements=["mlflow"],
    )
    return about


@pytest.fixture
def register(client: MlflowClient, onnx_file: Path, tmp_path: Path) -> Register:
    """Register the next version of a model in that database, as champion or under an alias; returns its number.

    Its package is tmp_path / "models" / "0", "1" ...; other arguments: see `package`.
    """

    def register_version(
        name: str = "cifar100-classifier",
        promoted_at: str = "2026-01-01T00:00:00+00:00",
        champion: bool = True,
        alias: str | None = None,
        run_id: str | None = None,
        **packaged: Any,
    ) -> int:
        folder = tmp_path / "models" / f"{len(list(tmp_path.glob('models/*')))}"
        about = package(folder, onnx_file, **packaged)
        if not client.search_registered_models(f"name='{name}'"):
            client.create_registered_model(name)
        tags = {key: about[key] for key in ("model", "onnx_sha256") if key in about}
        version = client.create_model_version(name, folder.as_uri(), run_id, tags).version
        if champion:
            history = json.loads(client.get_registered_model(name).tags.get(HISTORY, "[]"))
            history.append({"version": str(version), "since": promoted_at, "by": "gate"})
            client.set_registered_model_tag(name, HISTORY, json.dumps(history))
        for given in filter(None, ("champion" if champion else None, alias)):
            client.set_registered_model_alias(name, given, version)
        return int(version)

    return register_version


def spoil(package: Path, statement: str) -> None:
    """Have a package's own code run a statement before the network does; `images` are its (N, S, S, 3) uint8."""
    code = package / "onnx_model.py"
    before = "        logits = np.empty("
    assert code.read_text().count(before) == 1
    code.write_text(code.read_text().replace(before, f"        {statement}\n{before}"))


@pytest.fixture(scope="session")
def comparison_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a comparison's run of three models on 120 images of 8 by 8."""
    folder = tmp_path_factory.mktemp("comparison")
    small_comparison.write(folder, METADATA)
    return folder


@pytest.fixture
def log_comparison(comparison_files: Path, client: MlflowClient, tmp_path: Path) -> LogComparison:
    """Log that comparison and make it the one of a registered version; returns the run's id."""

    def log(number: int) -> str:
        experiment = client.create_experiment(f"comparison {number}", (tmp_path / "mlartifacts").as_uri())
        run_id = client.create_run(experiment, run_name="comparison").info.run_id
        client.log_artifacts(run_id, str(comparison_files))
        client.set_model_version_tag("cifar100-classifier", str(number), "comparison_run_id", run_id)
        return run_id

    return log


@pytest.fixture
def champion_run(register: Register, log_comparison: LogComparison, tmp_path: Path) -> Path:
    """The artifacts of the comparison that the champion, a vit_scratch, names."""
    return tmp_path / "mlartifacts" / log_comparison(register(model="vit_scratch")) / "artifacts"


def champions_comparison() -> LoggedComparison:
    """As the pages open it."""
    return comparison.of(registry.connect().champions()[0])


def champions_model() -> Model:
    """As the commands load it."""
    return registry.load(registry.connect().champions()[0])
