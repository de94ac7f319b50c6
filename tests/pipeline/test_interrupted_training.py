"""A training that is killed, and one whose tracking server is: same weights, one history, one MLflow run."""

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.tracking.server import Server

from .conftest import Clone

pytestmark = pytest.mark.slow

EPOCHS = 15
TRAIN = (sys.executable, "-m", "stages.train", "vit_scratch")
RUN, CHECKPOINT = Path("data/runs/vit_scratch"), Path("data/scratch/checkpoints-vit_scratch/checkpoint.json")


def results(root: Path) -> tuple[str, list[dict[str, str]], list[dict[str, str]]]:
    """Hash of the weights, and the curves by epoch and by step without their times."""
    curves = []
    for name in ("history", "steps"):
        with (root / RUN / f"{name}.csv").open() as lines:
            curves.append([{key: row[key] for key in row if key != "seconds"} for row in csv.DictReader(lines)])
    return json.loads((root / RUN / "run.json").read_text())["weights_sha256"], *curves


@pytest.fixture
def trained(clone: Clone) -> Clone:
    """A copy after an undisturbed training of vit_scratch."""
    clone.set_params({"models.vit_scratch.epochs": EPOCHS})
    clone.run(*TRAIN)
    assert not (clone.root / CHECKPOINT).exists()
    return clone


def start(clone: Clone, until: Callable[[], bool]) -> "subprocess.Popen[str]":
    """Start the training anew, and wait for a moment in the middle of it."""
    process = subprocess.Popen(TRAIN, cwd=clone.root, env=clone.environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 180
    while not until():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def finished_runs(client: MlflowClient, training_id: str) -> list[str]:
    experiment = client.get_experiment_by_name("demo")
    runs = client.search_runs([experiment.experiment_id], f"tags.training_id = '{training_id}'")
    return [run.info.run_id for run in runs if run.info.status == "FINISHED"]


def steps(client: MlflowClient, run_id: str, metric: str) -> list[int]:
    return sorted(point.step for point in client.get_metric_history(run_id, metric))


def test_a_killed_training_resumes_with_its_history_and_its_run(trained: Clone):
    expected, index = results(trained.root), trained.root / CHECKPOINT

    def three_epochs() -> bool:
        return index.exists() and len(json.loads(index.read_text())["notes"]["history"]) >= 3

    process = start(trained, three_epochs)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert results(trained.root) == expected, "what the first training made is untouched"

    before = [f"{row['seconds']:.6g}" for row in json.loads(index.read_text())["notes"]["history"]]
    trained.run(*TRAIN)
    assert results(trained.root) == expected
    with (trained.root / RUN / "history.csv").open() as lines:
        after = [row["seconds"] for row in csv.DictReader(lines)]
    assert after[: len(before)] == before, "these epochs were not trained again"
    assert [row["epoch"] for row in expected[1]] == [str(epoch) for epoch in range(1, EPOCHS + 1)]
    assert not index.parent.exists()

    record = json.loads((trained.root / RUN / "run.json").read_text())
    client = MlflowClient(f"sqlite:///{trained.root / 'mlflow.db'}")
    [run_id] = finished_runs(client, record["training_id"])
    assert steps(client, run_id, "val_top1") == list(range(1, EPOCHS + 1))
    assert set(steps(client, run_id, "step_train_loss")) == {int(row["step"]) for row in expected[2]} != set()


def test_a_training_outlives_its_tracking_server_and_register_replays_it(trained: Clone, tmp_path: Path):
    expected, server = results(trained.root), Server(tmp_path / "server")
    trained.environment["MLFLOW_TRACKING_URI"] = server.uri
    client = MlflowClient(server.uri)
    with server:
        training = start(
            trained,
            lambda: (trained.root / CHECKPOINT).exists() and client.get_experiment_by_name("demo") is not None,
        )
    _, said = training.communicate(timeout=180)
    assert training.returncode == 0, said[-3000:]
    assert said.count("tracking failed") == 1
    assert "Traceback" not in said
    assert results(trained.root) == expected
    record = json.loads((trained.root / RUN / "run.json").read_text())
    assert record["run_id"] is None

    with server:
        trained.run("dvc", "commit", "--force", "train@vit_scratch")
        trained.repro()
        version = client.get_model_version_by_alias("demo-classifier", "vit_scratch")
        assert version.tags["weights_sha256"] == expected[0]
        assert steps(client, version.run_id, "val_top1") == list(range(1, EPOCHS + 1))
        trained.run(sys.executable, "-m", "stages.register")
        assert finished_runs(client, record["training_id"]) == [version.run_id], "once only"
