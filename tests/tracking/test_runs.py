import json
import math
import socket
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from stages.tracking import runs
from stages.tracking.runs import DatasetUsed, TrainingRun
from stages.tracking.store import Store

SLOW = 120  # seconds that a busy machine may take for what is done at once elsewhere


def _train(store: Store, **arguments: object) -> TrainingRun:
    """What the stage does around a training of two epochs."""
    run = TrainingRun.start(
        store,
        "demo",
        "vit",
        params={"lr": 0.1, "flip": True},
        tags={"git_commit": "abc"},
        files={"params.yaml": "lr: 0.1  # as it was"},
    )
    with run:
        run.log_step(20, {"train_loss": 4.5})
        run.log_epoch(1, {"val_top1": 0.1, "train_loss": 4.0})
        run.log_epoch(2, {"val_top1": 0.2, "train_loss": math.nan})
        run.finish(tags={"weights_sha256": "w" * 64})
    return run


def test_a_run_shows_the_training(store: Store, client: MlflowClient) -> None:
    run_id = _train(store).run_id
    assert run_id is not None
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "vit"
    assert run.data.params == {"lr": "0.1", "flip": "True"}
    assert run.data.tags["git_commit"] == "abc"
    assert run.data.tags["weights_sha256"] == "w" * 64
    assert [(point.step, point.value) for point in client.get_metric_history(run_id, "val_top1")] == [
        (1, 0.1),
        (2, 0.2),
    ]
    assert [point.step for point in client.get_metric_history(run_id, "step_train_loss")] == [20]
    assert [point.step for point in client.get_metric_history(run_id, "train_loss")] == [1], "NaN is left out"
    assert Path(client.download_artifacts(run_id, "params.yaml")).read_text() == "lr: 0.1  # as it was"


def test_the_load_of_the_machine_is_measured_again_and_again(
    store: Store, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    monkeypatch.setattr(runs, "WRITE_EVERY", 0.1)
    with TrainingRun.start(store, "demo", "vit", params={}, tags={}) as run:
        deadline = time.monotonic() + SLOW
        while not (run.run_id and len(client.get_metric_history(run.run_id, "system/cpu_utilization_percentage")) > 2):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    measured = client.get_run(run.run_id).data.metrics
    assert 0 <= measured["system/cpu_utilization_percentage"] <= 100
    assert measured["system/system_memory_usage_megabytes"] > 10
    points = client.get_metric_history(run.run_id, "system/system_memory_usage_percentage")
    assert [point.step for point in points] == sorted(point.step for point in points)
    assert all(point.timestamp >= run.description.started for point in points)


def test_a_short_training_shows_the_load_once(store: Store, client: MlflowClient) -> None:
    run_id = _train(store).run_id
    assert run_id is not None
    assert len(client.get_metric_history(run_id, "system/cpu_utilization_percentage")) == 1


def test_a_load_that_cannot_be_measured_is_left_out(
    store: Store, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: CPUMonitor) -> None:
        raise RuntimeError("driver and library do not match")

    monkeypatch.setattr(CPUMonitor, "collect_metrics", fail)
    run_id = _train(store).run_id
    assert run_id is not None
    assert not capsys.readouterr().err
    run = client.get_run(run_id)
    assert (run.info.status, run.data.metrics["val_top1"]) == ("FINISHED", 0.2)
    assert "system/cpu_utilization_percentage" not in run.data.metrics
    assert any(name.startswith("system/disk") for name in run.data.metrics), "the others are measured all the same"


def test_a_machine_without_anything_to_measure_does_not_end_the_run(
    store: Store, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[None] = []
    measure = runs._System.measure

    def nothing(system: runs._System) -> list[Metric]:
        turns.append(None)
        assert not measure(system)
        return []

    initialize = SystemMetricsMonitor.__init__

    def without_monitors(monitor: SystemMetricsMonitor, *positional: object, **named: object) -> None:
        initialize(monitor, *positional, **named)
        monitor.monitors.clear()

    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    monkeypatch.setattr(runs, "WRITE_EVERY", 0.1)
    monkeypatch.setattr(SystemMetricsMonitor, "__init__", without_monitors)
    monkeypatch.setattr(runs._System, "measure", nothing)
    with TrainingRun.start(store, "demo", "vit", params={}, tags={}) as run:
        deadline = time.monotonic() + SLOW
        while len(turns) < 10:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert run._thread.is_alive()
        run.log_epoch(1, {"val_top1": 0.1})
    assert run.run_id is not None
    assert client.get_run(run.run_id).data.metrics == {"val_top1": 0.1}


def test_the_data_set_is_an_input_with_its_hash(store: Store, client: MlflowClient, dataset: DatasetUsed) -> None:
    with TrainingRun.start(store, "demo", "vit", params={}, tags={}, dataset=dataset) as run:
        pass
    assert run.run_id is not None
    (used,) = client.get_run(run.run_id).inputs.dataset_inputs
    assert used.dataset.name == "demo"
    assert "d" * 64 in used.dataset.profile


def test_many_steps_are_written_in_few_transactions(store: Store, client: MlflowClient, monkeypatch) -> None:
    written: list[int] = []
    log = runs.log_metrics

    def counted(client: MlflowClient, run_id: str, metrics: list[Metric]) -> None:
        written.append(sum(metric.key == "step_train_loss" for metric in metrics))
        log(client, run_id, metrics)

    monkeypatch.setattr(runs, "log_metrics", counted)
    with TrainingRun.start(store, "demo", "vit", params={}, tags={}) as run:
        for step in range(200):
            run.log_step(step + 1, {"train_loss": 1.0})
    assert run.run_id is not None
    assert sum(written) == len(client.get_metric_history(run.run_id, "step_train_loss")) == 200
    assert len(written) < 5, "each transaction takes processor time from the training"


def test_a_run_is_live_while_it_trains(store: Store, client: MlflowClient) -> None:
    with TrainingRun.start(store, "demo", "vit", params={}, tags={}) as run:
        run.log_epoch(1, {"val_top1": 0.1})
        deadline = time.monotonic() + SLOW
        while time.monotonic() < deadline:
            if run.run_id and client.get_run(run.run_id).data.metrics:
                break
            time.sleep(0.05)
        assert run.run_id is not None
        metrics = client.get_run(run.run_id).data.metrics
        assert {name: value for name, value in metrics.items() if "system" not in name} == {"val_top1": 0.1}
        assert client.get_run(run.run_id).info.status == "RUNNING"


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "KILLED"), (ValueError, "FAILED")])
def test_an_interrupted_training_ends_its_run(
    store: Store, client: MlflowClient, error: type[BaseException], status: str
) -> None:
    run = TrainingRun.start(store, "demo", "vit", params={}, tags={})
    with pytest.raises(error), run:
        raise error
    assert run.run_id is not None
    assert client.get_run(run.run_id).info.status == status


def test_a_server_that_refuses_costs_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run = _train(Store.of_repository(tmp_path))
    assert run.run_id is None
    (line,) = capsys.readouterr().err.splitlines()
    assert "goes on without" in line
    assert str(port) in line


def test_a_server_that_hangs_does_not_hold_up_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runs, "PATIENCE_REMOTE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        run = _train(Store.of_repository(tmp_path))
        assert run._thread.is_alive(), "the training did not wait for it"
    assert run.run_id is None
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_store_that_fails_in_the_middle_does_not_stop_the_training(
    store: Store, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk on fire")

    monkeypatch.setattr(runs, "log_metrics", fail)
    run = _train(store)
    assert run.run_id is None
    assert len(client.search_runs([store.experiment(client, "demo")])) == 1
    assert capsys.readouterr().err.splitlines() == ["tracking failed, training goes on without it (disk on fire)"]


def test_the_record_can_be_written_as_json_and_holds_no_password(
    root: Path, monkeypatch: pytest.MonkeyPatch, dataset: DatasetUsed
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:secret@127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run = TrainingRun.start(Store.of_repository(root), "demo", "vit", params={"lr": 1}, tags={}, dataset=dataset)
    run.finish(tags={"weights_sha256": "w"})
    record = json.dumps(run.record())
    assert "secret" not in record
    assert json.loads(record)["tags"] == {"weights_sha256": "w"}


def test_a_training_that_was_killed_goes_on_in_the_same_run(store: Store, client: MlflowClient) -> None:
    killed = TrainingRun.start(store, "demo", "vit", params={"lr": 0.1}, tags={})
    killed.log_epoch(1, {"val_top1": 0.1})
    deadline = time.monotonic() + SLOW
    while not (killed.run_id and client.get_run(killed.run_id).data.metrics):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # The second epoch was noted, but not logged any more.
    history = [{"epoch": epoch, "seconds": 2.0 * epoch, "val_top1": epoch / 10} for epoch in (1, 2)]
    resumed = TrainingRun.start(
        store,
        "demo",
        "vit",
        params={"lr": 0.1},
        tags={},
        training_id=killed.description.training_id,
        started=killed.description.started,
        history=history,
    )
    with resumed:
        resumed.log_epoch(3, {"val_top1": 0.3})
    assert resumed.run_id == killed.run_id
    points = sorted(client.get_metric_history(resumed.run_id, "val_top1"), key=lambda point: point.step)
    assert [(point.step, point.value) for point in points] == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert points[1].timestamp == killed.description.started + 4000
    assert client.get_run(resumed.run_id).info.status == "FINISHED"


def test_a_training_that_goes_on_with_another_store_has_its_history_there(store: Store, client: MlflowClient) -> None:
    before = {
        "history": [{"epoch": 1, "seconds": 2.0, "val_top1": 0.1}],
        "steps": [{"step": 20, "seconds": 1.5, "train_loss": 4.0}],
    }
    with TrainingRun.start(
        store, "demo", "vit", params={"lr": 0.1}, tags={}, training_id="t" * 32, started=1_000, **before
    ) as run:
        run.log_step(40, {"train_loss": 3.0})
        run.log_epoch(2, {"val_top1": 0.2})
    steps = sorted(client.get_metric_history(run.run_id, "step_train_loss"), key=lambda point: point.step)
    assert [(point.step, point.value) for point in steps] == [(20, 4.0), (40, 3.0)]
    assert steps[0].timestamp == 2_500
    assert {point.step for point in client.get_metric_history(run.run_id, "val_top1")} == {1, 2}
    assert client.get_run(run.run_id).data.params == {"lr": "0.1"}
