import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from stages.common.errors import UserError
from stages.tracking.registry import Entry
from stages.tracking.replay import Training, ensure_run
from stages.tracking.runs import TrainingRun
from stages.tracking.store import Store

STARTED = 1706933106000  # 2024-02-03T04:05:06 UTC


@pytest.fixture
def training(make_entry: Callable[..., Entry]) -> Training:
    return make_entry().training


def test_a_missing_run_is_rebuilt_with_its_original_times(
    store: Store, client: MlflowClient, training: Training
) -> None:
    run = client.get_run(ensure_run(client, store, "demo", training))
    assert run.info.status == "FINISHED"
    assert (run.info.start_time, run.info.end_time) == (STARTED, STARTED + 120_000)
    assert run.data.tags["replayed"] == "true"
    assert run.data.tags["git_commit"] == "abc"
    assert run.data.params == {"lr": "0.1"}
    points = client.get_metric_history(run.info.run_id, "val_top1")
    assert [(point.step, point.timestamp, point.value) for point in points] == [
        (1, STARTED + 50_500, 0.1),
        (2, STARTED + 100_000, 0.5),
    ]
    points = client.get_metric_history(run.info.run_id, "step_train_loss")
    assert [(point.step, point.timestamp, point.value) for point in points] == [
        (20, STARTED + 10_500, 4.5),
        (40, STARTED + 20_000, 3.5),
    ]
    assert run.inputs.dataset_inputs[0].dataset.name == "demo"
    assert Path(client.download_artifacts(run.info.run_id, "params.yaml")).read_text() == "lr: 0.1  # as it was"


def test_a_training_of_before_params_yaml_and_steps_were_kept_is_rebuilt_without(
    store: Store, client: MlflowClient, make_entry: Callable[..., Entry], tmp_path: Path
) -> None:
    make_entry()
    for name in ("params.yaml", "steps.csv"):
        (tmp_path / "a-0" / name).unlink()
    run_id = ensure_run(client, store, "demo", Training.read(tmp_path / "a-0"))
    assert client.list_artifacts(run_id) == []


def test_a_run_is_rebuilt_once_only(store: Store, client: MlflowClient, training: Training) -> None:
    assert ensure_run(client, store, "demo", training) == ensure_run(client, store, "demo", training)
    assert len(client.search_runs([store.experiment(client, "demo")])) == 1


def test_a_run_that_is_there_is_left_alone(store: Store, client: MlflowClient, training: Training) -> None:
    with TrainingRun.start(store, "demo", "a", params={}, tags={}) as live:
        live.finish(tags={"weights_sha256": training.weights_sha256})
    assert ensure_run(client, store, "demo", replace(training, run_id=live.run_id)) == live.run_id


def test_a_run_of_other_weights_does_not_count(store: Store, client: MlflowClient, training: Training) -> None:
    with TrainingRun.start(store, "demo", "a", params={}, tags={}) as live:
        live.finish(tags={"weights_sha256": "others"})
    assert ensure_run(client, store, "demo", replace(training, run_id=live.run_id)) != live.run_id


def test_a_run_that_broke_off_is_replaced(store: Store, client: MlflowClient, training: Training) -> None:
    experiment = store.experiment(client, "demo")
    broken = training.description.create(client, experiment)
    run_id = ensure_run(client, store, "demo", training)
    assert [run.info.run_id for run in client.search_runs([experiment])] == [run_id]
    assert run_id != broken


def test_a_deleted_run_is_rebuilt(store: Store, client: MlflowClient, training: Training) -> None:
    first = ensure_run(client, store, "demo", training)
    client.delete_run(first)
    assert ensure_run(client, store, "demo", training) != first


def test_a_moved_store_gets_its_runs_again(store: Store, root: Path, training: Training, tmp_path: Path) -> None:
    first = ensure_run(store.client(), store, "demo", training)
    moved = Store.of_repository(Path(shutil.move(root, tmp_path / "moved")))
    client = moved.client()
    second = ensure_run(client, moved, "demo", replace(training, run_id=first))
    assert second != first
    assert str(tmp_path / "moved") in client.get_run(second).info.artifact_uri


@pytest.mark.parametrize("name", ["run.json", "history.csv"])
def test_a_missing_record_is_one_clear_error(make_entry: Callable[..., Entry], tmp_path: Path, name: str) -> None:
    make_entry()
    (tmp_path / "a-0" / name).unlink()
    with pytest.raises(UserError, match="train the model again"):
        Training.read(tmp_path / "a-0")
