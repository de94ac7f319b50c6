"""Everything against a real `mlflow server`: SQLite store, artifacts through its HTTP proxy."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mlflow.pyfunc import load_model

from stages.tracking import registry
from stages.tracking.champion import roll_back
from stages.tracking.explorer import Explorer
from stages.tracking.gate import Gate
from stages.tracking.registry import Comparison, Entry, Registration
from stages.tracking.replay import Training, ensure_run
from stages.tracking.runs import TrainingRun
from stages.tracking.store import Store

from .conftest import pictures, validation
from .server import PATIENCE, Server

pytestmark = pytest.mark.slow


def test_register_fills_a_server_and_its_champion_comes_back_over_http(
    running_server: Server,
    root: Path,
    tmp_path: Path,
    make_entry: Callable[..., Entry],
    explorer: Explorer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", running_server.uri)
    store = Store.of_repository(root)
    report = tmp_path / "comparison.md"
    report.write_text("# Comparison")
    entries = [make_entry("a", val=0.3, seed=1), make_entry("b", val=0.6, seed=2)]

    def register() -> Registration:
        comparison = Comparison({"comparison.md": report}, explorer)
        return registry.register(
            store,
            "demo",
            "served-classifier",
            entries,
            comparison,
            train_images=pictures(3),
            val=validation(),
            gate=Gate(),
        )

    first = register()
    assert register() == first
    client = store.client()
    champion = client.get_model_version_by_alias("served-classifier", "champion")
    run = client.get_run(champion.run_id)
    assert (champion.tags["model"], run.data.tags["replayed"]) == ("b", "true")
    assert run.info.artifact_uri.startswith("mlflow-artifacts:"), "through the server, not past it"
    run_id = champion.tags["comparison_run_id"]
    assert {file.path for file in client.list_artifacts(run_id)} == {"comparison.md", "explorer"}
    images = client.download_artifacts(run_id, "explorer/images.npy", str(tmp_path))
    assert (np.load(images, allow_pickle=False) == pictures(5)).all()
    with store.as_default():
        model = load_model("models:/served-classifier@champion")
    assert model.predict(pictures(2)).shape == (2, 3)
    assert not (root / "mlartifacts").exists()

    entries[:] = [make_entry("b", val=0.9, seed=3)]
    assert "it took over from b (version 2): 90.00% against" in register().decision.reason, "it was asked over HTTP"
    assert roll_back(store, "served-classifier") == "b (version 2) is champion in place of b (version 3)"
    assert register().decision.champion == "2"


def test_a_training_whose_server_is_killed_goes_on_says_so_once_and_is_replayed_later(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = Server(tmp_path / "killed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    store = Store.of_repository(root)
    history = [{"epoch": epoch, "seconds": 2.0 * epoch, "val_top1": epoch / 10} for epoch in (1, 2, 3)]
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
        run.log_epoch(3, {"val_top1": 0.3})
        started = time.monotonic()
        run.finish(tags={"weights_sha256": "w" * 64})
        assert time.monotonic() - started < 60, "MLflow itself would try for minutes"
    assert run.run_id is None
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("tracking failed, training goes on without it (")

    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({**run.record(), "weights_sha256": "w" * 64}))
    rows = [f"{row['epoch']},{row['seconds']},{row['val_top1']}" for row in history]
    (folder / "history.csv").write_text("\n".join(["epoch,seconds,val_top1", *rows]) + "\n")
    with server:
        replayed = ensure_run(client, store, "demo", Training.read(folder))
        assert ensure_run(client, store, "demo", Training.read(folder)) == replayed
        assert [found.info.run_id for found in client.search_runs([store.experiment(client, "demo")])] == [replayed]
        assert replayed != begun
        found = client.get_run(replayed)
        assert (found.info.status, found.data.tags["replayed"]) == ("FINISHED", "true")
        assert found.info.start_time == run.description.started
        points = client.get_metric_history(replayed, "val_top1")
        assert sorted((point.step, point.value) for point in points) == [(1, 0.1), (2, 0.2), (3, 0.3)]
