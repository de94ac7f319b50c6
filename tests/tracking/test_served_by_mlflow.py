"""Registered versions in the hands of MLflow's own processes: `mlflow models serve` and `mlflow server`."""

import gc
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from mlflow import MlflowClient
from mlflow.pyfunc import load_model
from PIL import Image

from gui import registry as app
from stages.tracking import registry
from stages.tracking.explorer import Explorer
from stages.tracking.gate import Gate
from stages.tracking.registry import Comparison, Entry
from stages.tracking.store import Store

from . import bombs
from .conftest import CLASSES, pictures, validation
from .server import PATIENCE, Server

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
GREY = [[[[100, 100, 100]] * 4] * 4]  # one image
REFUSED: dict[str, tuple[Any, str]] = {
    "fractions": ({"inputs": [[[[0.5, 0.1, 0.2]]]]}, "whole numbers from 0 to 255"),
    "out of range": ({"inputs": [[[[0, 0, 256]]]]}, "whole numbers from 0 to 255"),
    "text": ({"inputs": [[[["a", "b", "c"]]]]}, "whole numbers from 0 to 255"),
    "a file's name": ({"inputs": "image.png"}, "not str"),
    "no batch": ({"inputs": GREY[0]}, r"not \(4, 4, 3\)"),
    "two sizes": ({"inputs": [GREY[0], GREY[0] * 2]}, "of one size"),
    "no image": ({"inputs": []}, "with pixels"),
    "columns": ({"dataframe_split": {"columns": ["a"], "data": [[1]]}}, "'inputs'"),
    "top_k of 1000": ({"inputs": GREY, "params": {"top_k": 1000}}, "ask for 1 to 3 classes"),
    "squeezed": ({"inputs": GREY, "params": {"square": "squeeze"}}, "choose one of crop, pad"),
    "broken": ('{"inputs": [[[', "valid JSON"),
}


@contextmanager
def mlflow_serves(package: Path) -> Iterator[str]:
    """The URI of `mlflow models serve`, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = ["mlflow", "models", "serve", "--model-uri", str(package), "--env-manager", "local", "--port", port]
    with tempfile.TemporaryFile("w+") as log:  # a pipe that nobody reads would stop it once it is full
        process = subprocess.Popen([sys.executable, "-m", *command], stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + PATIENCE
            while not _answers(f"http://127.0.0.1:{port}/ping"):
                if process.poll() is not None:
                    log.seek(0)
                    pytest.fail(f"it ended:\n{log.read()}")
                assert time.monotonic() < deadline, "no answer"
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def _answers(uri: str) -> bool:
    try:
        return requests.get(uri, timeout=2).ok
    except requests.RequestException:
        return False


def _ask(uri: str, body: Any) -> requests.Response:
    data = body if isinstance(body, str) else json.dumps(body)
    return requests.post(f"{uri}/invocations", data=data, headers={"Content-Type": "application/json"}, timeout=60)


@pytest.fixture
def package(make_entry: Callable[..., Entry], tmp_path: Path) -> Path:
    make_entry().package.save(tmp_path / "package")
    return tmp_path / "package"


def test_mlflows_own_command_serves_a_package_and_refuses_bad_requests_without_repeating_them(package: Path) -> None:
    expected = load_model(str(package)).predict(pictures(2))
    with mlflow_serves(package) as uri:
        found = _ask(uri, {"inputs": pictures(2).tolist()}).json()["predictions"]
        np.testing.assert_allclose(found, expected, atol=1e-6)
        example = (package / "serving_input_example.json").read_text()  # made by MLflow of the input example
        assert np.shape(_ask(uri, example).json()["predictions"]) == (2, len(CLASSES))
        rows = _ask(uri, {"inputs": GREY, "params": {"top_k": 2}}).json()["predictions"]
        assert [(row["image"], row["rank"]) for row in rows] == [(0, 1), (0, 2)]
        for name, (body, reason) in REFUSED.items():
            answer = _ask(uri, body)
            assert answer.status_code == 400, name
            assert re.search(reason, answer.json()["message"]), (name, answer.text)
            assert "stack_trace" not in answer.json() and "Traceback" not in answer.text, name
        large = {"inputs": [[[[300, 0, 0]] * 100] * 100]}
        assert len(_ask(uri, large).text) < 300


@pytest.mark.parametrize(
    ("plant", "reason"),
    [(bombs.as_weights, "no ONNX model"), (bombs.as_python_model, "pickle is disallowed")],
)
def test_a_version_with_a_planted_pickle_is_not_served(
    client: MlflowClient, root: Path, package: Path, bomb: Path, plant: Callable[[Path], None], reason: str
) -> None:
    plant(package)
    client.create_registered_model("demo-classifier")
    version = client.create_model_version("demo-classifier", package.as_uri())
    client.set_registered_model_alias("demo-classifier", "champion", version.version)
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{root / 'mlflow.db'}", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true"}
    done = subprocess.run(
        [sys.executable, "-m", "gui.server", "--port", "0"],
        cwd=REPOSITORY,
        env=os.environ | store,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("server: Version 1 of demo-classifier does not load")
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1
    assert not bomb.exists()


def test_a_champion_on_a_real_server_classifies_images_for_the_app_and_the_command_line(
    running_server: Server,
    root: Path,
    tmp_path: Path,
    make_entry: Callable[..., Entry],
    explorer: Explorer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", running_server.uri)
    (tmp_path / "comparison.md").write_text("# Comparison")
    registry.register(
        Store.of_repository(root),
        "demo",
        "remote-classifier",
        [make_entry("a", val=0.3, seed=1), make_entry("b", val=0.6, seed=2)],
        Comparison({"comparison.md": tmp_path / "comparison.md"}, explorer),
        train_images=pictures(3),
        val=validation(),
        gate=Gate(),
    )

    monkeypatch.setenv("MODEL_NAME", "remote-classifier")
    version = app.wanted(app.connect().champions())[0]
    model = app.load(version)
    assert (model.name, model.class_names) == ("b", CLASSES)
    probabilities = model.probabilities(pictures(3))
    for index, image in enumerate(pictures(3)):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    done = subprocess.run(
        [sys.executable, "-m", "gui.classify", "--top", "1", *sorted(map(str, tmp_path.glob("*.png")))],
        cwd=REPOSITORY,
        env=os.environ,
        check=True,
        capture_output=True,
        text=True,
    )
    answers = [json.loads(line)["answers"][0] for line in done.stdout.splitlines()]
    assert [answer["class"] for answer in answers] == [CLASSES[row.argmax()] for row in probabilities]
    assert [answer["probability"] for answer in answers] == pytest.approx(probabilities.max(1).tolist(), abs=1e-6)

    (fetched,) = Path(tempfile.gettempdir()).glob("model-*/artifacts/model.onnx")
    del model
    gc.collect()
    assert not fetched.exists(), "what a server sent goes with the model"
