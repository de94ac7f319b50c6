import multiprocessing
import shutil
from pathlib import Path

import mlflow
import pytest
from filelock import Timeout
from mlflow import MlflowClient

from stages.common.errors import UserError
from stages.tracking.store import Store


def test_the_default_store_is_the_one_that_plain_mlflow_ui_opens(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.experiment(store.client(), "demo")
    assert store.is_default
    monkeypatch.chdir(root)
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
    assert MlflowClient(mlflow.get_tracking_uri()).get_experiment_by_name("demo") is not None


def test_mlflow_tracking_uri_names_another_store(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:secret@tracking.example:5000")
    store = Store.of_repository(root)
    assert store.uri == "http://someone:secret@tracking.example:5000"
    assert store.is_remote
    assert store.shown_uri == "http://tracking.example:5000"


def test_a_relative_database_counts_from_the_repository(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///tracking/mine.db")
    monkeypatch.chdir(root.parent)
    store = Store.of_repository(root)
    assert store.uri == f"sqlite:///{root}/tracking/mine.db"
    assert not store.is_default


def test_artifacts_stand_in_the_repository_wherever_the_process_runs(
    store: Store, client: MlflowClient, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    run = client.create_run(store.experiment(client, "demo"))
    client.log_text(run.info.run_id, "text", "note.txt")
    assert [file.read_text() for file in (root / "mlartifacts" / "demo").rglob("note.txt")] == ["text"]


def test_an_experiment_is_created_once(store: Store, client: MlflowClient) -> None:
    assert store.experiment(client, "demo") == store.experiment(client, "demo")


def test_a_deleted_experiment_is_restored(store: Store, client: MlflowClient) -> None:
    experiment = store.experiment(client, "demo")
    client.delete_experiment(experiment)
    assert store.experiment(client, "demo") == experiment
    assert client.get_experiment(experiment).lifecycle_stage == "active"


def test_a_moved_store_keeps_its_artifacts_in_the_new_place(store: Store, root: Path, tmp_path: Path) -> None:
    old = store.experiment(store.client(), "demo")
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    client = Store.of_repository(moved).client()
    new = Store.of_repository(moved).experiment(client, "demo")
    assert new != old
    assert client.get_experiment(new).artifact_location == (moved / "mlartifacts" / "demo").as_uri()
    assert str(root) in client.get_experiment(old).name
    assert Store.of_repository(moved).experiment(client, "demo") == new


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UserError, match=str(tmp_path)):
        Store.of_repository(tmp_path).client()


@pytest.mark.slow
def test_processes_that_start_together_create_one_database(tmp_path: Path) -> None:
    folder = tmp_path / "a b#c%20d?e"  # what a path may hold and a URI may not
    folder.mkdir()
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        experiments = pool.map(_create_experiment, [folder] * 3)
    assert len(set(experiments)) == 1
    assert (folder / "mlflow.db").is_file()


def _create_experiment(folder: Path) -> str:
    store = Store.of_repository(folder)
    return store.experiment(store.client(), "demo")


@pytest.mark.parametrize("uri", ["sqlite:///{root}/mlflow.db", "http://127.0.0.1:9"])
def test_repositories_that_share_a_store_share_its_locks(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    (tmp_path / "copy").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(root=root))
    one = Store.of_repository(root)
    if "http" in uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:secret@127.0.0.1:9/")
    other = Store.of_repository(tmp_path / "copy")
    with one.lock("registration"), pytest.raises(Timeout):
        other.lock("registration").acquire(timeout=0.1)
    with other.lock("registration").acquire(timeout=0.1):
        pass


def test_stores_of_their_own_have_locks_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stores = []
    for port in (9, 10):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        stores.append(Store.of_repository(tmp_path))
    with stores[0].lock("registration"), stores[1].lock("registration").acquire(timeout=0.1):
        pass


def test_mlflows_pages_open_an_experiment_on_its_runs(store: Store, client: MlflowClient) -> None:
    experiment = client.get_experiment(store.experiment(client, "demo"))
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("http://localhost:5000", "http://127.0.0.1:5000/", True),
        ("https://Tracking.Example/a", "https://me:secret@tracking.example/a/", True),
        ("https://tracking.example/a", "https://tracking.example/b", False),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5001", False),
    ],
)
def test_a_server_has_one_lock_however_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: str, other: str, is_same: bool
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    files = []
    for uri in (one, other):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        files.append(Store.of_repository(tmp_path).lock("registration").lock_file)
    assert (files[0] == files[1]) == is_same
