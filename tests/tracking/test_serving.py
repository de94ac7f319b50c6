"""Registered models served by real processes: over HTTP, and from a real `mlflow server` to the app's own code."""

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
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from mlflow import MlflowClient
from mlflow.pyfunc import load_model
from PIL import Image

from gui import registry as app
from gui import serve
from stages.tracking import registry
from stages.tracking.explorer import Explorer
from stages.tracking.gate import Gate
from stages.tracking.registry import Comparison, Entry
from stages.tracking.store import Store

from . import bombs
from .conftest import CLASSES, pictures, validation
from .server import Server

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE = 180.0  # seconds: it imports a good deal, and the machine may be busy
GREY = [[[[100, 100, 100]] * 4] * 4]  # one picture


@contextmanager
def served(*command: str, **environment: str) -> Iterator[str]:
    """The URI of a process that `command --port PORT` starts, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with tempfile.TemporaryFile("w+") as log:  # a pipe that nobody reads would stop it once it is full
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--port", port],
            cwd=REPOSITORY,
            env=os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"} | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
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


def _ask(uri: str, body: Any, kind: str | None = "application/json") -> requests.Response:
    data = body if isinstance(body, (str, bytes)) else json.dumps(body)
    return requests.post(f"{uri}/invocations", data=data, headers={"Content-Type": kind} if kind else {}, timeout=60)


def _status_of_a_request_of(length: str, uri: str) -> int:
    """What a request is answered that claims so many bytes, before any of them is sent."""
    connection = HTTPConnection(uri.removeprefix("http://"), timeout=60)
    connection.putrequest("POST", "/invocations")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", length)
    connection.endheaders()
    try:
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.fixture
def package(make_entry: Callable[..., Entry], tmp_path: Path) -> Path:
    make_entry().package.save(tmp_path / "package")
    return tmp_path / "package"


@pytest.fixture
def registered(client: MlflowClient, root: Path, package: Path) -> str:
    """The URI of a database whose only model, with a champion, is the package."""
    client.create_registered_model("demo-classifier")
    version = client.create_model_version("demo-classifier", package.as_uri())
    client.set_registered_model_alias("demo-classifier", "champion", version.version)
    return f"sqlite:///{root / 'mlflow.db'}"


BAD_JSON: dict[str, tuple[Any, str]] = {
    "fractions": ({"inputs": [[[[0.5, 0.1, 0.2]]]]}, "fractions"),
    "out of range": ({"inputs": [[[[0, 0, 256]]]]}, "from 0 to 255, not 0 to 256"),
    "below zero": ({"inputs": [[[[0, 0, -1]]]]}, "from 0 to 255"),
    "text": ({"inputs": [[[["a", "b", "c"]]]]}, "text"),
    "a file's name": ({"inputs": "picture.png"}, "not str"),
    "not a number": ('{"inputs": [[[[NaN, 0, 0]]]]}', "fractions"),
    "null": ({"inputs": None}, "not NoneType"),
    "no batch": ({"inputs": GREY[0]}, r"not \(4, 4, 3\)"),
    "two colours": ({"inputs": [[[[1, 2]]]]}, r"not \(1, 1, 1, 2\)"),
    "two sizes": ({"inputs": [GREY[0], GREY[0] * 2]}, "of one size"),
    "no picture": ({"inputs": []}, "with pixels"),
    "no pixels": ({"inputs": [[[]]]}, "with pixels"),
    "columns": ({"dataframe_split": {"columns": ["a"], "data": [[1]]}}, "'inputs'"),
    "a chat": ({"messages": [{"role": "user", "content": "hi"}]}, "not dict"),
    "no inputs": ({"pictures": GREY}, "'inputs'"),
    "top_k of 1000": ({"inputs": GREY, "params": {"top_k": 1000}}, "ask for 1 to 3 classes"),
    "top_k below zero": ({"inputs": GREY, "params": {"top_k": -1}}, "ask for 1 to 3 classes"),
    "top_k in words": ({"inputs": GREY, "params": {"top_k": "three"}}, "top_k"),
    "params in a list": ({"inputs": GREY, "params": [3]}, "must be a dictionary"),
    "broken": ('{"inputs": [[[', "valid JSON"),
    "empty": ("", "valid JSON"),
    "a list": ([1, 2], "Received a list"),
    "bytes": (b"\x89PNG\r\n\x1a\n\xff", "valid JSON"),
}


def _check_bad_requests(uri: str, *, is_mlflow_alone: bool = False) -> None:
    """is_mlflow_alone: whether it is MLflow's own server, which repeats some requests in its answer."""
    for name, (body, reason) in BAD_JSON.items():
        answer = _ask(uri, body)
        assert answer.status_code == 400, name
        assert re.search(reason, answer.json()["message"]), (name, answer.text)
        assert "stack_trace" not in answer.json(), name
        assert "Traceback" not in answer.text, name
        if not is_mlflow_alone:
            assert "\n" not in answer.json()["message"] and len(answer.json()["message"]) <= 300, name


def test_the_served_champion_names_classes_and_refuses_bad_requests(
    registered: str, package: Path, tmp_path: Path
) -> None:
    expected = load_model(str(package)).predict(pictures(2))
    with served("gui.serve", MLFLOW_TRACKING_URI=registered) as uri:
        predictions = _ask(uri, {"inputs": pictures(2).tolist()}).json()["predictions"]
        np.testing.assert_allclose(predictions, expected, atol=1e-6)
        example = (package / "serving_input_example.json").read_text()  # made by MLflow of the input example
        assert np.shape(_ask(uri, example).json()["predictions"]) == (2, len(CLASSES))

        with pytest.raises(OSError):
            socket.create_connection(
                ("127.0.0.2", int(uri.rpartition(":")[2])), timeout=5
            )  # this machine, another door
        _check_bad_requests(uri)
        for kind in ("text/csv", "application/vnd.apache.parquet", "application/x-www-form-urlencoded", None):
            answer = _ask(uri, {"inputs": GREY}, kind)
            assert (answer.status_code, answer.json()["error_code"]) == (415, "BAD_REQUEST"), kind
            assert "send JSON" in answer.json()["message"]
        assert _ask(uri, {"inputs": GREY}, "Application/JSON; charset=UTF-8").status_code == 200
        assert _ask(uri, "[" * 100_000).status_code == 400
        assert "too many digits" in _ask(uri, f'{{"inputs": [[[[{"1" * 5_000}]]]]}}').json()["message"]
        limit = serve.MAX_MEGABYTES * 2**20
        assert _status_of_a_request_of(str(limit + 1), uri) == 413
        assert _status_of_a_request_of("many", uri) in (400, 413)
        chunks = requests.post(
            f"{uri}/invocations", data=iter([b"{}"]), headers={"Content-Type": serve.JSON}, timeout=60
        )
        assert (chunks.status_code, "an unknown number of bytes" in chunks.text) == (413, True)
        fitting = json.dumps({"inputs": GREY})
        assert _ask(uri, fitting + " " * (limit - len(fitting))).status_code == 200
        assert _ask(uri, fitting + " " * (limit - len(fitting) + 1)).status_code == 413

        Image.fromarray(pictures(1, side=40)[0]).save(tmp_path / "picture.jpg")
        answers = json.loads(_run_line_of_the_readme(uri, tmp_path))["predictions"]
    assert [(answer["rank"], set(answer)) for answer in answers] == [
        (rank, {"picture", "rank", "class", "superclass", "probability"}) for rank in (1, 2, 3)
    ]
    assert {answer["class"] for answer in answers} == set(CLASSES)


def _run_line_of_the_readme(uri: str, folder: Path) -> str:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    line = next(block for block in re.findall(r"```sh\n(.*?)```", readme, re.DOTALL) if "/invocations" in block)
    assert "http://127.0.0.1:5001/" in line
    line = line.replace("http://127.0.0.1:5001", uri).replace("python -c", f"{sys.executable} -c", 1)
    done = subprocess.run(["bash", "-c", line], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


def test_mlflows_own_command_serves_the_package_and_refuses_bad_requests(package: Path) -> None:
    with served("mlflow", "models", "serve", "--model-uri", str(package), "--env-manager", "local") as uri:
        assert len(_ask(uri, {"inputs": GREY, "params": {"top_k": 2}}).json()["predictions"]) == 2
        _check_bad_requests(uri, is_mlflow_alone=True)


@pytest.mark.parametrize(
    ("plant", "reason"),
    [(bombs.as_weights, "no readable safetensors file"), (bombs.as_python_model, "pickle is disallowed")],
)
def test_a_model_with_a_planted_pickle_is_not_served(
    registered: str, package: Path, bomb: Path, plant: Callable[[Path], None], reason: str
) -> None:
    plant(package)
    environment = os.environ | {"MLFLOW_TRACKING_URI": registered, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true"}
    done = subprocess.run(
        [sys.executable, "-m", "gui.serve"], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("serve: Version 1 of demo-classifier does not load")
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1
    assert not bomb.exists()


def test_a_champion_on_a_real_server_classifies_pictures_for_the_app_and_the_command_line(
    running_server: Server,
    root: Path,
    tmp_path: Path,
    make_entry: Callable[..., Entry],
    explorer: Explorer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", running_server.uri)
    (tmp_path / "comparison.md").write_text("# Comparison")
    entries = [make_entry("a", val=0.3, seed=1), make_entry("b", val=0.6, seed=2)]
    registry.register(
        Store.of_repository(root),
        "demo",
        "remote-classifier",
        entries,
        Comparison({"comparison.md": tmp_path / "comparison.md"}, explorer),
        train_images=pictures(3),
        val=validation(),
        gate=Gate(),
    )

    monkeypatch.setenv("MODEL_NAME", "remote-classifier")
    version = app.wanted(app.connect().champions())[0]
    model = app.load(version)
    assert (model.classifier, model.class_names) == ("b", CLASSES)
    probabilities = model.probabilities(pictures(3))
    for index, picture in enumerate(pictures(3)):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
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

    assert model.folder is not None
    fetched = Path(model.folder.name)
    assert any(fetched.rglob("MLmodel"))
    del model
    gc.collect()
    assert not fetched.exists(), "what a server sent goes with the model"
