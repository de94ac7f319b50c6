"""A training that is killed and started again: one history, one MLflow run, the same weights."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from .conftest import Clone

pytestmark = pytest.mark.slow

EPOCHS = 15
TRAIN = (sys.executable, "-m", "stages.train", "vit_scratch")


def results(root: Path) -> tuple[str, list[dict[str, str]], list[dict[str, str]]]:
    """Hash of the weights, and the curves by epoch and by step without their times."""
    run = json.loads((root / "data/runs/vit_scratch/run.json").read_text())
    curves = []
    for name in ("history", "steps"):
        with (root / f"data/runs/vit_scratch/{name}.csv").open() as lines:
            curves.append(
                [{key: cell for key, cell in row.items() if key != "seconds"} for row in csv.DictReader(lines)]
            )
    return run["weights_sha256"], *curves


def test_a_killed_training_goes_on_with_its_history_and_its_run(clone: Clone, tmp_path: Path):
    copy = clone.copy(tmp_path / "copy")
    copy.set_params({"models.vit_scratch.epochs": EPOCHS})
    copy.run(*TRAIN)
    expected = results(copy.root)
    assert len(expected[1]) == EPOCHS
    before = json.loads((copy.root / "data/runs/vit_scratch/run.json").read_text())["run_id"]

    index = copy.root / "data/scratch/checkpoints-vit_scratch/checkpoint.json"
    assert not index.exists()
    process = subprocess.Popen(TRAIN, cwd=copy.root, env=copy.environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not index.exists() or len(json.loads(index.read_text())["notes"]["history"]) < 3:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert results(copy.root) == expected, "what the first training made is untouched"

    assert "going on from the checkpoint after step" in copy.run(*TRAIN)
    assert results(copy.root) == expected
    assert [row["epoch"] for row in expected[1]] == [str(epoch) for epoch in range(1, EPOCHS + 1)]
    assert not index.parent.exists()

    record = json.loads((copy.root / "data/runs/vit_scratch/run.json").read_text())
    client = MlflowClient(f"sqlite:///{copy.root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("demo")
    runs = client.search_runs([experiment.experiment_id], f"tags.training_id = '{record['training_id']}'")
    assert [run.info.status for run in runs] == ["FINISHED"]
    assert runs[0].info.run_id != before
    steps = [metric.step for metric in client.get_metric_history(runs[0].info.run_id, "val_top1")]
    assert sorted(steps) == list(range(1, EPOCHS + 1))
    steps = [metric.step for metric in client.get_metric_history(runs[0].info.run_id, "step_train_loss")]
    assert set(steps) == {int(row["step"]) for row in expected[2]} != set()
