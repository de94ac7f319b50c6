from pathlib import Path

import pytest

from stages.common.errors import UserError
from stages.tracking.replay import TrainingRecord, ensure_run
from stages.tracking.runs import TrainingRun

STARTED = 1706933106000  # 2024-02-03T04:05:06 UTC


def test_a_missing_run_is_rebuilt_once_with_its_original_times(store, client, demo):
    training, experiment_id = demo.entry().training, store.experiment(client, "demo")
    interrupted = training.description.create(client, experiment_id)
    run = client.get_run(ensure_run(client, store, "demo", training))
    run_id = run.info.run_id
    assert ensure_run(client, store, "demo", training) == run_id != interrupted
    assert [found.info.run_id for found in client.search_runs([experiment_id])] == [run_id]
    assert run.info.status == "FINISHED"
    assert (run.info.start_time, run.info.end_time) == (STARTED, STARTED + 120_000)
    assert (run.data.tags["replayed"], run.data.tags["git_commit"]) == ("true", "abc")
    assert run.data.params == {"lr": "0.1"}
    for name, expected in {
        "val_top1": [(1, 50_500, 0.1), (2, 100_000, 0.5)],
        "step_train_loss": [(20, 10_500, 4.5), (40, 20_000, 3.5)],
    }.items():
        points = client.get_metric_history(run_id, name)
        assert [(point.step, point.timestamp - STARTED, point.value) for point in points] == expected
    assert run.inputs.dataset_inputs[0].dataset.name == "demo"
    assert Path(client.download_artifacts(run_id, "params.yaml")).read_text() == "lr: 0.1  # as it was"
    client.delete_run(run_id)
    assert ensure_run(client, store, "demo", training) != run_id


def test_a_training_of_before_params_yaml_and_steps_were_kept_is_rebuilt_without(store, client, demo):
    demo.entry()
    for name in ("params.yaml", "steps.csv"):
        (demo.folder / "a-0" / name).unlink()
    run_id = ensure_run(client, store, "demo", TrainingRecord.read(demo.folder / "a-0"))
    assert client.list_artifacts(run_id) == []


@pytest.mark.parametrize("is_of_these_weights", [True, False])
def test_a_run_that_shows_these_weights_is_left_alone(store, client, demo, is_of_these_weights):
    training = demo.entry().training
    weights_sha256 = training.weights_sha256 if is_of_these_weights else "others"
    training_id = training.description.training_id
    with TrainingRun.start(store, "demo", "a", params={}, tags={}, training_id=training_id) as live:
        live.finish(tags={"weights_sha256": weights_sha256})
    assert (ensure_run(client, store, "demo", training) == live.run_id) is is_of_these_weights


@pytest.mark.parametrize("name", ["run.json", "history.csv"])
def test_a_missing_record_is_one_clear_error(demo, name):
    demo.entry()
    (demo.folder / "a-0" / name).unlink()
    with pytest.raises(UserError, match="train the model again"):
        TrainingRecord.read(demo.folder / "a-0")
