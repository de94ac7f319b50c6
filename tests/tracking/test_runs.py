import json
import math
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from stages.tracking import runs
from stages.tracking.runs import DatasetUsed, TrainingRun
from stages.tracking.store import Store

SLOW = 120  # seconds that a busy machine may take for what is done at once elsewhere
LOAD = "system/cpu_utilization_percentage"
DATASET = DatasetUsed("demo", "d" * 64, {"train": 9, "val": 3}, "data/prepared")


def _train(store: Store, **described: object) -> TrainingRun:
    """What the stage does around a training of two epochs."""
    params, tags = {"lr": 0.1, "flip": True}, {"git_commit": "abc"}
    with TrainingRun.start(store, "demo", "vit", params=params, tags=tags, dataset=DATASET, **described) as run:
        run.log_step(20, {"train_loss": 4.5})
        run.log_epoch(1, {"val_top1": 0.1, "train_loss": 4.0})
        run.log_epoch(2, {"val_top1": 0.2, "train_loss": math.nan})
        run.finish(tags={"weights_sha256": "w" * 64})
    return run


def _points(client: MlflowClient, run: TrainingRun, name: str) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in client.get_metric_history(run.run_id, name))


def _wait(until: Callable[[], object]) -> None:
    deadline = time.monotonic() + SLOW
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_run_shows_the_training_and_what_was_measured_before_it_came_to_this_store(store, client):
    before = [{"step": 10, "seconds": 1.5, "train_loss": 5.0}]
    run = _train(store, files={"params.yaml": "lr: 0.1  # as it was"}, started=1_000, steps=before)
    found = client.get_run(run.run_id)
    assert (found.info.status, found.info.run_name, found.info.start_time) == ("FINISHED", "vit", 1_000)
    assert found.data.params == {"lr": "0.1", "flip": "True"}
    assert (found.data.tags["git_commit"], found.data.tags["weights_sha256"]) == ("abc", "w" * 64)
    assert _points(client, run, "val_top1") == [(1, 0.1), (2, 0.2)]
    assert _points(client, run, "step_train_loss") == [(10, 5.0), (20, 4.5)]
    assert min(point.timestamp for point in client.get_metric_history(run.run_id, "step_train_loss")) == 2_500
    assert _points(client, run, "train_loss") == [(1, 4.0)], "NaN is left out"
    assert Path(client.download_artifacts(run.run_id, "params.yaml")).read_text() == "lr: 0.1  # as it was"
    (used,) = found.inputs.dataset_inputs
    assert used.dataset.name == "demo"
    assert "d" * 64 in used.dataset.profile


def test_many_steps_are_written_in_few_transactions(store, client, monkeypatch):
    written: list[int] = []
    log = runs.log_metrics
    monkeypatch.setattr(runs, "log_metrics", lambda *given: (written.append(len(given[2])), log(*given)))
    with TrainingRun.start(store, "demo", "vit", params={}, tags={}) as run:
        for step in range(2000):
            run.log_step(step + 1, {"train_loss": 1.0})
    assert sum(written) == len(_points(client, run, "step_train_loss")) == 2000
    assert len(written) < 10, "each transaction takes processor time from the training"


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "KILLED"), (ValueError, "FAILED")])
def test_an_interrupted_training_ends_its_run(store, client, error, status):
    run = TrainingRun.start(store, "demo", "vit", params={}, tags={})
    with pytest.raises(error), run:
        raise error
    assert client.get_run(run.run_id).info.status == status


def test_a_server_that_hangs_does_not_hold_up_the_training_and_the_record_holds_no_password(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(runs, "PATIENCE_REMOTE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:secret@127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        run = _train(Store.of_repository(tmp_path))
        assert time.monotonic() - started < 5
    assert run.run_id is None
    assert capsys.readouterr().err == "tracking failed, training goes on without it (no answer within 0 s)\n"
    record = json.dumps(run.record())
    assert "secret" not in record
    assert json.loads(record)["tags"] == {"git_commit": "abc", "weights_sha256": "w" * 64}


def test_a_store_that_fails_in_the_middle_costs_one_line(store, client, monkeypatch, capsys):
    def fail(*_):
        raise OSError("disk on fire")

    monkeypatch.setattr(runs, "log_metrics", fail)
    run = _train(store)
    assert run.run_id is None
    assert len(client.search_runs([store.experiment(client, "demo")])) == 1
    assert capsys.readouterr().err.splitlines() == ["tracking failed, training goes on without it (disk on fire)"]


def test_a_run_is_live_and_a_training_that_was_killed_goes_on_in_it(store, client, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    monkeypatch.setattr(runs, "WRITE_EVERY", 0.1)
    killed = TrainingRun.start(store, "demo", "vit", params={"lr": 0.1}, tags={})
    killed.log_epoch(1, {"val_top1": 0.1})
    _wait(lambda: killed.run_id and _points(client, killed, "val_top1") and len(_points(client, killed, LOAD)) > 2)
    assert client.get_run(killed.run_id).info.status == "RUNNING"
    # The second epoch was noted, but not logged any more.
    history = [{"epoch": epoch, "seconds": 2.0 * epoch, "val_top1": epoch / 10} for epoch in (1, 2)]
    before = {"training_id": killed.description.training_id, "started": killed.description.started, "history": history}
    with TrainingRun.start(store, "demo", "vit", params={"lr": 0.1}, tags={}, **before) as resumed:
        resumed.log_epoch(3, {"val_top1": 0.3})
    assert resumed.run_id == killed.run_id is not None
    assert _points(client, resumed, "val_top1") == [(1, 0.1), (2, 0.2), (3, 0.3)]
    times = {point.step: point.timestamp for point in client.get_metric_history(resumed.run_id, "val_top1")}
    assert times[2] == killed.description.started + 4000
    found = client.get_run(resumed.run_id)
    assert found.info.status == "FINISHED"
    assert 0 <= found.data.metrics[LOAD] <= 100
    assert found.data.metrics["system/system_memory_usage_megabytes"] > 10
    killed.finish()
