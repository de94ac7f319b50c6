"""What `register` makes of trained models in a store: versions, runs, metrics, plots, the comparison's run."""

import json
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel, load_model

from stages.common.errors import UserError
from stages.inference import onnx_model
from stages.inference.onnx_model import OnnxModel
from stages.tracking import explorer, registry
from stages.tracking.gate import Gate
from stages.tracking.registered_model import Decision, RegisteredModel
from stages.tracking.registry import Entry
from stages.tracking.store import Store

from .conftest import random_images, validation, with_about, with_metrics

NAME = "demo-classifier"
METRICS = {"val/top1": 0.5, "test/top1": 0.4}
MakeEntry = Callable[..., Entry]


@pytest.fixture
def comparison(tmp_path: Path) -> dict[str, Path]:
    """Files that compare the models, by their path in their run; tests may change them."""
    files = {"comparison.md": tmp_path / "comparison.md", "plots/top1.png": tmp_path / "top1.png"}
    for file in files.values():
        file.write_text("content")
    return files


@pytest.fixture
def register(comparison: dict[str, Path]) -> Callable[..., Decision]:
    def register(store: Store, *entries: Entry) -> Decision:
        val, images = validation(), random_images(3)
        return registry.register(store, "demo", NAME, entries, comparison, train_images=images, val=val, gate=Gate())

    return register


Register = Callable[..., Decision]


def _load_champion(store: Store) -> PyFuncModel:
    with store.exclusive():
        return load_model(f"models:/{NAME}@champion")


def test_every_model_is_a_version_with_its_name_and_the_best_on_val_is_champion(
    store: Store, client: MlflowClient, make_entry: MakeEntry, register: Register
) -> None:
    a, b = make_entry("a", val=0.2, test=0.9, seed=1), make_entry("b", val=0.6, test=0.1, seed=2)
    first = register(store, a, b, make_entry("c", val=0.6, seed=3))
    assert RegisteredModel(client, NAME).aliases == {"a": "1", "b": "2", "c": "3", "champion": "2"}
    assert first.reason == "b is champion with 60.00% top-1 on val, before c (60.00%), a (20.00%)"
    model = _load_champion(store)
    assert model.metadata.metadata == b.package.metadata
    assert model.predict(random_images(2)).shape == (2, 3)
    tags = client.get_model_version(NAME, "2").tags
    for key in ("model", "source", "weights_sha256", "onnx_sha256", "data_sha256", "package_sha256"):
        assert tags[key] == b.package.metadata[key]


def test_registering_again_changes_nothing_not_even_at_once(
    store: Store, client: MlflowClient, make_entry: MakeEntry, register: Register
) -> None:
    def content() -> tuple[list[dict[str, object]], set[str]]:
        versions = client.search_model_versions(f"name = '{NAME}'")
        runs = client.search_runs([store.experiment(client, "demo")])
        return [dict(version) for version in versions], {run.info.run_id for run in runs}

    entries = make_entry("a", seed=1), make_entry("b", seed=2)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: register(store, *entries), range(2))
    assert first == second
    before = content()
    assert (len(before[0]), len(before[1])) == (2, 3), "two models and their comparison"
    assert register(store, *entries) == first
    assert content() == before


def test_another_file_format_or_threshold_makes_another_version_and_other_metrics_do_not(
    store: Store, client: MlflowClient, make_entry: MakeEntry, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = make_entry("a")
    changed = with_about(entry, data_sha256="e" * 64), with_about(entry, temperature=3.0)
    same = with_metrics(entry, val={"top1": 0.4}, test=entry.package.metrics["test"])
    for each in (entry, same, make_entry("a", seed=1), *changed):
        register(store, each)
    assert RegisteredModel(client, NAME).aliases["a"] == "4"
    monkeypatch.setattr(onnx_model, "FORMAT", 3)
    register(store, entry)
    assert RegisteredModel(client, NAME).aliases["a"] == "5"


def test_a_version_describes_itself_and_its_example_runs(
    store: Store, client: MlflowClient, make_entry: MakeEntry, register: Register
) -> None:
    register(store, make_entry("a", val=0.5, test=0.4))
    version = client.get_model_version(NAME, "1")
    assert "Image classifier `a`, trained on demo: 3 classes in 2 superclasses" in version.description
    assert version.tags["onnx_sha256"][:12] in version.description
    assert "Test top-1: 40.00% (95 % interval 39.00% to 41.00%, n = 2,000)" in version.description
    [example] = re.findall(r"```python\n(.*?)```", version.description, re.DOTALL)
    names = {"mlflow": mlflow, "images": random_images(1)}
    with store.exclusive():
        exec(example.replace('"top_k": 5', '"top_k": 3'), names)
    assert names["model"].metadata.metadata["onnx_sha256"] == version.tags["onnx_sha256"]  # type: ignore[attr-defined]
    register(store, make_entry("a", val=0.5, test=0.3))
    assert "Test top-1: 30.00%" in client.get_model_version(NAME, "1").description


def test_measured_metrics_stand_in_run_and_model_and_new_ones_replace_them(
    store: Store, client: MlflowClient, make_entry: MakeEntry, register: Register
) -> None:
    entry = make_entry("a", val=0.5, test=0.4)
    register(store, entry)
    version = client.get_model_version(NAME, "1")
    run = client.get_run(version.run_id)
    assert METRICS.items() <= run.data.metrics.items()
    assert run.info.end_time == 1706933226000, "the run keeps the time of the training"
    (output,) = run.outputs.model_outputs
    assert version.source == f"models:/{output.model_id}"
    register(store, with_about(entry, temperature=3.0))
    second = client.get_model_version(NAME, "2")
    assert second.run_id == version.run_id
    for source in (version.source, second.source):
        logged = client.get_logged_model(source.removeprefix("models:/"))
        assert METRICS.items() <= {metric.key: metric.value for metric in logged.metrics}.items()
    for _ in range(2):
        register(store, make_entry("a", val=0.3, test=0.4))
    assert client.get_run(version.run_id).data.metrics["val/top1"] == 0.3
    assert [metric.value for metric in client.get_metric_history(version.run_id, "val/top1")][-1] == 0.3


def test_the_comparison_has_a_run_with_every_file_once(
    store: Store,
    client: MlflowClient,
    make_entry: MakeEntry,
    register: Register,
    comparison: dict[str, Path],
    tmp_path: Path,
) -> None:
    def run_id() -> str:
        register(store, make_entry("a"))
        return client.get_model_version(NAME, "1").tags["comparison_run_id"]

    images, labels = tmp_path / "test_images.npy", tmp_path / "test_labels.npy"
    np.save(images, random_images(3))
    np.save(labels, np.arange(3))
    # As float16 the first two rows have equals, and in the second one the wrong class would be first.
    probabilities = np.array([[0.3, 0.30001, 0.39999], [0.45001, 0.45002, 0.09997], [0.1, 0.2, 0.7]], np.float32)
    assert probabilities.astype(np.float16).argmax(axis=1).tolist() == [2, 0, 2]
    comparison |= explorer.write(tmp_path / "explorer", images, labels, {"source": "demo"}, {"a": probabilities})
    first = run_id()
    assert run_id() == first
    assert {file.path for file in client.list_artifacts(first)} == {"comparison.md", "plots", "explorer"}
    folder = Path(client.download_artifacts(first, "explorer", str(tmp_path)))
    assert not any(file.is_symlink() for file in folder.iterdir())
    assert (np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False) == random_images(3)).all()
    assert np.load(folder / "labels.npy", allow_pickle=False).tolist() == [0, 1, 2]
    assert json.loads((folder / "dataset.json").read_text()) == {"source": "demo", "models": ["a"]}
    stored = np.load(folder / "probabilities-a.npy", allow_pickle=False)
    assert stored.dtype == np.float16
    assert stored.argmax(axis=1).tolist() == [2, 1, 2]
    assert np.abs(stored - probabilities).max() < 5e-4
    comparison["plots/top1.png"].write_text("another plot")
    assert run_id() != first


def test_lost_artifacts_are_logged_again_and_a_models_own_plots_are_replaced_by_newer_ones(
    store: Store, root: Path, client: MlflowClient, tmp_path: Path, make_entry: MakeEntry, register: Register
) -> None:
    plot = tmp_path / "confusion_a.png"
    entry = replace(make_entry("a"), plots=[plot])
    for content in ("first", "second", "second"):
        plot.write_text(content)
        register(store, entry)
        run_id = client.get_model_version_by_alias(NAME, "champion").run_id
        assert Path(client.download_artifacts(run_id, f"plots/{plot.name}")).read_text() == content
        shutil.rmtree(root / "mlartifacts", ignore_errors=content == "first")
    register(store, entry)
    assert _load_champion(store).predict(random_images(1)).shape == (1, 3)
    assert {"params.yaml", "plots"} <= {file.path for file in client.list_artifacts(run_id)}


def test_a_moved_repository_gets_working_versions_and_says_why(
    store: Store, root: Path, tmp_path: Path, make_entry: MakeEntry, register: Register
) -> None:
    register(store, make_entry("a"))
    moved = Store.of_repository(Path(shutil.move(root, tmp_path / "moved")))
    second = register(moved, make_entry("a"))
    champion = moved.client().get_model_version_by_alias(NAME, "champion")
    assert str(champion.version) == second.champion == "2"
    assert champion.tags["logged_again"] == "version 1: its artifacts are gone"
    assert _load_champion(moved).predict(random_images(1)).shape == (1, 3)
    assert not root.exists()
    assert register(moved, make_entry("a")) == second


def test_a_changed_file_in_the_store_is_refused_in_one_line_that_says_what_to_do(
    store: Store, root: Path, make_entry: MakeEntry, register: Register
) -> None:
    register(store, make_entry("a"))
    [file] = (root / "mlartifacts").rglob("model.onnx")
    content = bytearray(file.read_bytes())
    content[-100] ^= 1  # one bit of a weight: the file still loads
    file.write_bytes(content)
    assert OnnxModel(file).logits(random_images(1)).shape == (1, 3)
    with pytest.raises(MlflowException) as refusal:
        _load_champion(store)
    line = r"model\.onnx was changed after it was registered \(sha256 \w{12}\.\.\., expected \w{12}\.\.\.\): .*"
    assert re.fullmatch(line, refusal.value.message)
    assert refusal.value.message.endswith(": register the model again")


def test_an_upload_that_breaks_off_leaves_no_version(
    store: Store, client: MlflowClient, make_entry: MakeEntry, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(*_: object) -> None:
        raise ConnectionError("connection reset by peer")

    with monkeypatch.context() as network:
        network.setattr(MlflowClient, "log_model_artifacts", break_off)
        with pytest.raises(ConnectionError):
            register(store, make_entry("a"))
    assert client.search_model_versions(f"name = '{NAME}'") == []
    assert [str(found.status) for found in client.search_logged_models([store.experiment(client, "demo")])] == [
        "FAILED"
    ]
    assert register(store, make_entry("a")).champion == "1"


@pytest.mark.parametrize(("damaged", "is_gone"), [("MLmodel", True), ("training_pictures.npy", False), ("run", True)])
def test_a_damaged_package_is_logged_again(
    store: Store,
    root: Path,
    client: MlflowClient,
    make_entry: MakeEntry,
    register: Register,
    damaged: str,
    is_gone: bool,
) -> None:
    first = register(store, make_entry("a"))
    for file in (root / "mlartifacts").rglob(f"artifacts/**/{damaged}"):
        content = file.read_bytes()
        file.unlink()
        if not is_gone:
            file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # of the same size
    if damaged == "run":
        client.delete_run(client.get_model_version(NAME, "1").run_id)
    second = register(store, make_entry("a"))
    assert (first.champion, second.champion) == ("1", "2")
    assert _load_champion(store).predict(random_images(1)).shape == (1, 3)
    assert register(store, make_entry("a")) == second


def test_a_folder_that_cannot_be_written_or_a_server_that_is_down_is_one_clear_error(
    root: Path, store: Store, make_entry: MakeEntry, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = make_entry("a")
    with monkeypatch.context() as read_only:
        read_only.setattr("os.access", lambda *_: False)
        with pytest.raises(UserError, match=f"cannot write the tracking database or its locks in {root}: allow it"):
            register(store, entry)
    assert [file.name for file in root.iterdir()] == ["mlflow.db"], "no lock was left there"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9"):
        register(Store.of_repository(root), entry)
