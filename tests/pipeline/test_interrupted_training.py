"""A training that is killed and started again: the same weights, one history, one MLflow run."""

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
RUNS, CHECKPOINT = Path("data/runs/vit_scratch"), Path("data/scratch/checkpoints-vit_scratch-1/checkpoint.json")
FIRST = Path("data/scratch/trained-vit_scratch-0/run/run.json")


def results(root: Path) -> list[tuple[str, list[dict[str, str]], list[dict[str, str]]]]:
    """Of each seed: hash of the weights, and the curves by epoch and by step without their times."""
    found = []
    for run in sorted((root / RUNS).iterdir()):
        curves = []
        for name in ("history", "steps"):
            with (run / f"{name}.csv").open() as lines:
                curves.append([{key: row[key] for key in row if key != "seconds"} for row in csv.DictReader(lines)])
        found.append((json.loads((run / "run.json").read_text())["weights_sha256"], *curves))
    return found


def test_a_stage_killed_in_its_second_seed_resumes_there_with_its_history_and_its_run(clone: Clone):
    clone.set_params({"models.vit_scratch.epochs": EPOCHS, "budget.seeds": 2})
    clone.run(*TRAIN)
    expected, index = results(clone.root), clone.root / CHECKPOINT
    assert len({weights for weights, *_ in expected}) == 2
    assert [row["epoch"] for row in expected[1][1]] == [str(epoch) for epoch in range(1, EPOCHS + 1)]
    assert not index.exists()

    process = subprocess.Popen(TRAIN, cwd=clone.root, env=clone.environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while not index.exists() or len(json.loads(index.read_text())["notes"]["history"]) < 3:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert results(clone.root) == expected, "what the first training made is untouched"

    first = (clone.root / FIRST).read_bytes()
    before = [f"{row['seconds']:.6g}" for row in json.loads(index.read_text())["notes"]["history"]]
    clone.run(*TRAIN)
    assert results(clone.root) == expected
    assert (clone.root / RUNS / "0/run.json").read_bytes() == first, "the first seed was not trained again"
    with (clone.root / RUNS / "1/history.csv").open() as lines:
        after = [row["seconds"] for row in csv.DictReader(lines)]
    assert after[: len(before)] == before, "these epochs were not trained again"
    assert not [*(clone.root / "data/scratch").glob("*vit_scratch*")]

    record = json.loads((clone.root / RUNS / "1/run.json").read_text())
    client = MlflowClient(f"sqlite:///{clone.root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("demo")
    [run] = client.search_runs([experiment.experiment_id], f"tags.training_id = '{record['training_id']}'")
    assert run.info.status == "FINISHED"
    epochs = sorted(point.step for point in client.get_metric_history(run.info.run_id, "val_top1"))
    assert epochs == list(range(1, EPOCHS + 1))
    steps = {point.step for point in client.get_metric_history(run.info.run_id, "step_train_loss")}
    assert steps == {int(row["step"]) for row in expected[1][2]} != set()
