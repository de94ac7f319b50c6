"""A training whose tracking server is killed: the same weights, one line, and the whole run once the server is back."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.tracking.server import Server

from .conftest import Clone
from .test_killed_training import EPOCHS, TRAIN, results

pytestmark = pytest.mark.slow

PATIENCE = 180.0  # seconds


def test_a_training_outlives_its_tracking_server_and_register_replays_it(clone: Clone, tmp_path: Path):
    copy = clone.copy(tmp_path / "copy")
    copy.set_params({"models.vit_scratch.epochs": EPOCHS})
    copy.run(*TRAIN)
    expected = results(copy.root)

    server = Server(tmp_path / "server")
    copy.environment["MLFLOW_TRACKING_URI"] = server.uri
    client = MlflowClient(server.uri)
    index = copy.root / "data/scratch/checkpoints-vit_scratch/checkpoint.json"
    with server:
        training = subprocess.Popen(TRAIN, cwd=copy.root, env=copy.environment, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + PATIENCE
        while not (index.exists() and client.search_experiments(filter_string="name = 'demo'")):
            assert training.poll() is None, "it ended before its server could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    _, said = training.communicate(timeout=PATIENCE)
    assert training.returncode == 0, said[-3000:]
    assert said.count("tracking failed, training goes on without it (") == 1
    assert "Traceback" not in said
    assert results(copy.root) == expected
    record = json.loads((copy.root / "data/runs/vit_scratch/run.json").read_text())
    assert record["run_id"] is None

    with server:
        copy.run("dvc", "commit", "--force", "train@vit_scratch")
        copy.run("dvc", "repro")
        version = client.get_model_version_by_alias("demo-classifier", "vit_scratch")
        assert version.tags["weights_sha256"] == expected[0]
        run = client.get_run(version.run_id)
        assert run.data.tags["replayed"] == "true"
        assert run.data.tags["training_id"] == record["training_id"]
        points = client.get_metric_history(run.info.run_id, "val_top1")
        assert sorted(point.step for point in points) == list(range(1, EPOCHS + 1))
        copy.run(sys.executable, "-m", "stages.register")
        found = client.search_runs([run.info.experiment_id], f"tags.training_id = '{record['training_id']}'")
        finished = [one.info.run_id for one in found if one.info.status == "FINISHED"]
        assert finished == [run.info.run_id], "once only"
