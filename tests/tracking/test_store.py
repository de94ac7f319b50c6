import multiprocessing
import shutil

import mlflow
import pytest
from filelock import Timeout
from mlflow import MlflowClient

from stages.tracking.store import Store


def test_the_default_store_is_the_one_that_plain_mlflow_ui_opens(store, root, monkeypatch):
    store.experiment(store.client(), "demo")
    monkeypatch.chdir(root)
    mlflow.set_tracking_uri(None)
    assert MlflowClient(mlflow.get_tracking_uri()).get_experiment_by_name("demo") is not None


def test_mlflow_tracking_uri_names_another_store(root, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:secret@tracking.example:5000")
    store = Store.of_repository(root)
    assert store.uri == "http://someone:secret@tracking.example:5000"
    assert store.is_remote
    assert store.shown_uri == "http://tracking.example:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///tracking/mine.db")
    monkeypatch.chdir(root.parent)
    assert Store.of_repository(root).uri == f"sqlite:///{root}/tracking/mine.db", "it counts from the repository"


def test_an_experiment_is_created_once_restored_and_keeps_its_artifacts_in_the_repository(
    store, client, root, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    experiment = store.experiment(client, "demo")
    assert client.get_experiment(experiment).tags["mlflow.experimentKind"] == "custom_model_development"
    client.log_text(client.create_run(experiment).info.run_id, "text", "note.txt")
    assert [file.read_text() for file in (root / "mlartifacts" / "demo").rglob("note.txt")] == ["text"]
    client.delete_experiment(experiment)
    assert store.experiment(client, "demo") == experiment
    assert client.get_experiment(experiment).lifecycle_stage == "active"


def test_a_moved_store_keeps_its_artifacts_in_the_new_place(store, root, tmp_path):
    old = store.experiment(store.client(), "demo")
    elsewhere = store.client().create_experiment("elsewhere", artifact_location=(tmp_path / "elsewhere").as_uri())
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    copy = Store.of_repository(moved)
    client = copy.client()
    new = copy.experiment(client, "demo")
    assert new != old
    assert client.get_experiment(new).artifact_location == (moved / "mlartifacts" / "demo").as_uri()
    assert str(root) in client.get_experiment(old).name
    assert copy.experiment(client, "demo") == new
    assert copy.experiment(client, "elsewhere") == elsewhere, "somebody chose that place"


@pytest.mark.slow
def test_processes_that_start_together_create_one_database(tmp_path):
    folder = tmp_path / "a b#c%20d?e"  # what a path may hold and a URI may not
    folder.mkdir()
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        experiments = pool.map(_create_experiment, [folder] * 3)
    assert len(set(experiments)) == 1
    assert (folder / "mlflow.db").is_file()


def _create_experiment(folder):
    store = Store.of_repository(folder)
    return store.experiment(store.client(), "demo")


@pytest.mark.parametrize(
    ("one", "other"),
    [("sqlite:///{root}/mlflow.db",) * 2, ("http://localhost:5000", "http://me:secret@127.0.0.1:5000/")],
)
def test_repositories_that_share_a_store_share_its_locks(root, tmp_path, monkeypatch, one, other):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stores = []
    for uri, folder in ((one, root), (other, tmp_path)):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(root=root))
        stores.append(Store.of_repository(folder))
    with stores[0].lock("registration"), pytest.raises(Timeout):
        stores[1].lock("registration").acquire(timeout=0.1)
    with stores[1].lock("registration").acquire(timeout=0.1):
        pass
