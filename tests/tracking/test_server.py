"""Everything against real `mlflow` processes: training, registration, roll-back, the app, the command line, serving."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from mlflow.pyfunc import load_model
from PIL import Image

from gui import registry as app
from stages.tracking.replay import TrainingRecord, ensure_run
from stages.tracking.runs import TrainingRun
from stages.tracking.store import Store

from .conftest import CLASSES, DemoModel, random_images
from .server import PATIENCE, MlflowServer

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
NAME = DemoModel.name
GREY = [[[[100, 100, 100]] * 4] * 4]  # one image
REFUSED: dict[str, tuple[Any, str]] = {
    "fractions": ({"inputs": [[[[0.5, 0.1, 0.2]]]]}, "whole numbers from 0 to 255"),
    "a file's name": ({"inputs": "image.png"}, "not str"),
    "no image": ({"inputs": []}, "with pixels"),
    "columns": ({"dataframe_split": {"columns": ["a"], "data": [[1]]}}, "'inputs'"),
    "top_k of 1000": ({"inputs": GREY, "params": {"top_k": 1000}}, "ask for 1 to 3 classes"),
    "broken": ('{"inputs": [[[', "valid JSON"),
}


def test_a_server_holds_registration_roll_back_and_what_app_and_command_line_classify_with(root, tmp_path, monkeypatch):
    with MlflowServer.of_store(tmp_path / "server") as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        demo = DemoModel(Store.of_repository(root), tmp_path / "files")
        entries = demo.entry("a", val=0.3, seed=1), demo.entry("b", val=0.6, seed=2)
        first, client = demo.register(*entries), demo.client
        assert demo.register(*entries) == first
        champion = client.get_model_version_by_alias(NAME, "champion")
        run = client.get_run(champion.run_id)
        assert (champion.tags["model"], run.data.tags["replayed"]) == ("b", "true")
        assert run.info.artifact_uri.startswith("mlflow-artifacts:"), "through the server, not past it"
        run_id = champion.tags["comparison_run_id"]
        assert {file.path for file in client.list_artifacts(run_id)} == {"comparison.md", "plots"}
        assert not (root / "mlartifacts").exists()

        monkeypatch.setenv("MODEL_NAME", NAME)
        model = app.load(app.connect().champions()[0])
        assert (model.name, model.class_names) == ("b", CLASSES)
        probabilities = model.probabilities(random_images(3))
        for index, image in enumerate(random_images(3)):
            Image.fromarray(image).save(tmp_path / f"{index}.png")
        command = [sys.executable, "-m", "gui.classify", "--top", "1", *sorted(map(str, tmp_path.glob("[0-9].png")))]
        done = subprocess.run(command, cwd=REPOSITORY, env=os.environ, check=True, capture_output=True, text=True)
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert [answer["class"] for answer in found] == [CLASSES[row.argmax()] for row in probabilities]
        assert [each["probability"] for each in found] == pytest.approx(probabilities.max(1).tolist(), abs=1e-6)
        assert not list(Path(tempfile.gettempdir()).glob("model-*/artifacts/model.onnx")), "what a server sent is left"

        newer = demo.entry("b", val=0.9, seed=3)
        assert "it took over from b (version 2): 90.00% against" in demo.register(newer).reason, "run over HTTP"
        assert demo.roll_back() == "b (version 2) is champion in place of b (version 3)"
        assert demo.register(newer).champion == "2"


def test_a_training_whose_server_is_killed_goes_on_says_so_once_and_is_replayed_later(
    root, tmp_path, monkeypatch, capsys
):
    server = MlflowServer.of_store(tmp_path / "killed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    store = Store.of_repository(root)
    with server:
        run = TrainingRun.start(store, "demo", "vit", params={"lr": 0.1}, tags={"git_commit": "abc"})
        run.log_epoch(1, {"val_top1": 0.1})
        client = store.client()
        deadline = time.monotonic() + PATIENCE
        while not (run.run_id and "val_top1" in client.get_run(run.run_id).data.metrics):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        begun = run.run_id
    with run:
        run.log_epoch(2, {"val_top1": 0.2})
        started = time.monotonic()
        run.finish(tags={"weights_sha256": "w" * 64})
        assert time.monotonic() - started < 60, "MLflow itself would try for minutes"
    assert run.run_id is None
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("tracking failed, training goes on without it (")

    (tmp_path / "run.json").write_text(json.dumps({**run.record(), "weights_sha256": "w" * 64}))
    (tmp_path / "history.csv").write_text("epoch,seconds,val_top1\n1,2.0,0.1\n2,4.0,0.2\n")
    with server:
        replayed = ensure_run(client, store, "demo", TrainingRecord.read(tmp_path))
        assert ensure_run(client, store, "demo", TrainingRecord.read(tmp_path)) == replayed != begun
        assert [found.info.run_id for found in client.search_runs([store.experiment(client, "demo")])] == [replayed]
        found = client.get_run(replayed)
        assert (found.info.status, found.data.tags["replayed"]) == ("FINISHED", "true")
        assert found.info.start_time == run.description.started
        points = client.get_metric_history(replayed, "val_top1")
        assert sorted((point.step, point.value) for point in points) == [(1, 0.1), (2, 0.2)]


def _ask(uri: str, body: Any) -> requests.Response:
    data = body if isinstance(body, str) else json.dumps(body)
    return requests.post(f"{uri}/invocations", data=data, headers={"Content-Type": "application/json"}, timeout=60)


def test_mlflows_own_command_serves_a_package_and_refuses_bad_requests_without_repeating_them(demo, tmp_path):
    package = tmp_path / "package"
    demo.entry().package.save(package)
    expected = load_model(str(package)).predict(random_images(2))
    with MlflowServer.of_model(tmp_path / "serving", package) as server:
        found = _ask(server.uri, {"inputs": random_images(2).tolist()}).json()["predictions"]
        np.testing.assert_allclose(found, expected, atol=1e-6)
        example = (package / "serving_input_example.json").read_text()  # made by MLflow of the input example
        assert np.shape(_ask(server.uri, example).json()["predictions"]) == (2, len(CLASSES))
        rows = _ask(server.uri, {"inputs": GREY, "params": {"top_k": 2}}).json()["predictions"]
        assert [(row["image"], row["rank"]) for row in rows] == [(0, 1), (0, 2)]
        for name, (body, reason) in REFUSED.items():
            answer = _ask(server.uri, body)
            assert answer.status_code == 400, name
            assert re.search(reason, answer.json()["message"]), (name, answer.text)
            assert "stack_trace" not in answer.json() and "Traceback" not in answer.text, name
        large = {"inputs": [[[[300, 0, 0]] * 100] * 100]}
        assert len(_ask(server.uri, large).text) < 300
