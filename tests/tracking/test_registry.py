import json
import re
import shutil
from collections.abc import Callable, Mapping
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
from stages.tracking import registry
from stages.tracking.explorer import Explorer
from stages.tracking.gate import Gate
from stages.tracking.registry import Comparison, Entry, Registration
from stages.tracking.store import Store

from .conftest import pictures, validation, with_about, with_metrics

NAME = "demo-classifier"
METRICS = {"val/top1": 0.5, "test/top1": 0.4}


@pytest.fixture
def comparison(tmp_path: Path) -> dict[str, Path]:
    files = {"comparison.md": tmp_path / "comparison.md", "plots/top1.png": tmp_path / "top1.png"}
    for file in files.values():
        file.write_text("content")
    return files


@pytest.fixture
def register(comparison: Mapping[str, Path]) -> Callable[..., Registration]:
    def register(store: Store, *entries: Entry) -> Registration:
        return registry.register(
            store,
            "demo",
            NAME,
            entries,
            Comparison(comparison),
            train_images=pictures(3),
            val=validation(),
            gate=Gate(),
        )

    return register


def _aliases(client: MlflowClient) -> dict[str, str]:
    return {alias: str(version) for alias, version in client.get_registered_model(NAME).aliases.items()}


def _load_champion(store: Store) -> PyFuncModel:
    with store.as_default():
        return load_model(f"models:/{NAME}@champion")


def test_every_model_is_a_version_with_its_name_and_the_best_is_champion(
    store: Store, client: MlflowClient, make_entry: Callable[..., Entry], register: Callable[..., Registration]
) -> None:
    registration = register(store, make_entry("a", val=0.2, seed=1), make_entry("b", val=0.6, seed=2))
    versions = registration.versions
    assert _aliases(client) == {"a": versions["a"], "b": versions["b"], "champion": versions["b"]}
    champion = client.get_model_version_by_alias(NAME, "champion")
    assert champion.tags["gate"] == "b is champion with 60.00% top-1 on val, before a (20.00%)"
    assert champion.tags["model"] == "b"
    assert "promoted_at" in champion.tags
    model = _load_champion(store)
    assert model.metadata.metadata["model"] == "b"
    assert model.predict(pictures(2)).shape == (2, 3)


def test_the_test_split_decides_nothing(
    store: Store, client: MlflowClient, make_entry: Callable[..., Entry], register: Callable[..., Registration]
) -> None:
    register(store, make_entry("a", val=0.6, test=0.1, seed=1), make_entry("b", val=0.5, test=0.9, seed=2))
    assert client.get_model_version_by_alias(NAME, "champion").tags["model"] == "a"


def test_registering_again_changes_nothing(
    store: Store, client: MlflowClient, make_entry: Callable[..., Entry], register: Callable[..., Registration]
) -> None:
    entries = make_entry("a", seed=1), make_entry("b", seed=2)
    first = register(store, *entries)
    versions = [dict(version) for version in client.search_model_versions(f"name = '{NAME}'")]
    runs = {run.info.run_id for run in client.search_runs([store.experiment(client, "demo")])}
    assert register(store, *entries) == first
    assert [dict(version) for version in client.search_model_versions(f"name = '{NAME}'")] == versions
    assert {run.info.run_id for run in client.search_runs([store.experiment(client, "demo")])} == runs
    assert len(runs) == 3  # two models and their comparison


def test_two_registrations_at_once_make_one_version(
    store: Store, client: MlflowClient, make_entry: Callable[..., Entry], register: Callable[..., Registration]
) -> None:
    entry = make_entry("a")
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: register(store, entry), range(2))
    assert first == second
    assert len(client.search_model_versions(f"name = '{NAME}'")) == 1


def test_another_file_format_or_threshold_makes_another_version_and_other_metrics_do_not(
    store: Store,
    make_entry: Callable[..., Entry],
    register: Callable[..., Registration],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = make_entry("a")
    first = register(store, entry).versions["a"]
    assert register(store, with_metrics(entry, val={"top1": 0.4})).versions["a"] == first
    others = [make_entry("a", seed=1), with_about(entry, data_sha256="e" * 64), with_about(entry, temperature=3.0)]
    versions = [register(store, other).versions["a"] for other in others]
    monkeypatch.setattr(onnx_model, "FORMAT", 3)
    versions.append(register(store, entry).versions["a"])
    assert len({first, *versions}) == 5


def test_a_version_bears_the_hashes_of_what_it_holds_as_tags(
    store: Store, client: MlflowClient, make_entry: Callable[..., Entry], register: Callable[..., Registration]
) -> None:
    entry = make_entry("a")
    tags = client.get_model_version(NAME, register(store, entry).versions["a"]).tags
    for key in ("model", "source", "weights_sha256", "onnx_sha256", "data_sha256", "package_sha256"):
        assert tags[key] == entry.package.metadata[key]
    assert "code_sha256" not in tags


def test_a_version_describes_itself_and_its_example_runs(
    store: Store, client: MlflowClient, make_entry: Callable[..., Entry], register: Callable[..., Registration]
) -> None:
    number = register(store, make_entry("a", val=0.5, test=0.4)).versions["a"]
    version = client.get_model_version(NAME, number)
    assert "Image classifier `a`, trained on demo: 3 classes in 2 superclasses" in version.description
    assert version.tags["onnx_sha256"][:12] in version.description
    assert "Test top-1: 40.00% (95 % interval 39.00% to 41.00%, n = 2,000)" in version.description
    assert version.description.endswith(f"**Gate:** {version.tags['gate']}")
    [example] = re.findall(r"```python\n(.*?)```", version.description, re.DOTALL)
    assert len(example.splitlines()) == 2
    names = {"mlflow": mlflow, "images": pictures(1)}
    with store.as_default():
        exec(example.replace('"top_k": 5', '"top_k": 3'), names)
        loaded = names["model"]
    assert loaded.metadata.metadata["onnx_sha256"] == version.tags["onnx_sha256"]

    register(store, make_entry("a", val=0.5, test=0.3))
    described = client.get_model_version(NAME, number).description
    assert "Test top-1: 30.00% (95 % interval 29.00% to 31.00%, n = 2,000)" in described
    assert described.endswith(f"**Gate:** {version.tags['gate']}")


def test_measured_metrics_stand_in_the_models_run(
    store: Store, client: MlflowClient, make_entry: Callable[..., Entry], register: Callable[..., Registration]
) -> None:
    registration = register(store, make_entry("a", val=0.5, test=0.4))
    version = client.get_model_version(NAME, registration.versions["a"])
    run = client.get_run(version.run_id)
    assert run.data.metrics["val/top1"] == 0.5
    assert run.data.metrics["test/top1"] == 0.4
    assert run.info.end_time == 1706933226000, "the run keeps the time of the training"
    (output,) = run.outputs.model_outputs
    logged = client.get_logged_model(output.model_id)
    assert METRICS.items() <= {metric.key: metric.value for metric in logged.metrics}.items()
    assert version.source == f"models:/{output.model_id}"


def test_metrics_that_were_measured_anew_replace_the_old_ones(
    store: Store, client: MlflowClient, make_entry: Callable[..., Entry], register: Callable[..., Registration]
) -> None:
    register(store, make_entry("a", val=0.5, test=0.4))
    registration = register(store, make_entry("a", val=0.3, test=0.4))
    version = client.get_model_version(NAME, registration.versions["a"])
    assert client.get_run(version.run_id).data.metrics["val/top1"] == 0.3
    register(store, make_entry("a", val=0.3, test=0.4))
    assert [metric.value for metric in client.get_metric_history(version.run_id, "val/top1")] == [0.5, 0.3]


def test_a_second_version_of_a_training_has_its_metrics_too(
    store: Store, client: MlflowClient, make_entry: Callable[..., Entry], register: Callable[..., Registration]
) -> None:
    entry = make_entry("a", val=0.5, test=0.4)
    register(store, entry)
    version = client.get_model_version(NAME, register(store, with_about(entry, temperature=3.0)).versions["a"])
    assert version.version == 2
    logged = client.get_logged_model(version.source.removeprefix("models:/"))
    assert METRICS.items() <= {metric.key: metric.value for metric in logged.metrics}.items()


def test_the_comparison_has_a_run_that_the_version_names(
    store: Store,
    client: MlflowClient,
    make_entry: Callable[..., Entry],
    register: Callable[..., Registration],
    comparison: Mapping[str, Path],
) -> None:
    registration = register(store, make_entry("a"))
    run_id = client.get_model_version(NAME, registration.versions["a"]).tags["comparison_run_id"]
    assert {file.path for file in client.list_artifacts(run_id)} == {"comparison.md", "plots"}
    comparison["plots/top1.png"].write_text("another plot")
    register(store, make_entry("a"))
    assert client.get_model_version(NAME, registration.versions["a"]).tags["comparison_run_id"] != run_id


def test_the_comparison_holds_the_test_images_and_every_answer_once(
    store: Store, client: MlflowClient, make_entry: Callable[..., Entry], explorer: Explorer, tmp_path: Path
) -> None:
    def register(explorer: Explorer) -> str:
        registration = registry.register(
            store,
            "demo",
            NAME,
            [make_entry("a")],
            Comparison({Path(__file__).name: Path(__file__)}, explorer),
            train_images=pictures(3),
            val=validation(),
            gate=Gate(),
        )
        return client.get_model_version(NAME, registration.versions["a"]).tags["comparison_run_id"]

    run_id = register(explorer)
    folder = Path(client.download_artifacts(run_id, "explorer", str(tmp_path)))
    assert {file.name for file in folder.iterdir()} == {
        "dataset.json",
        "images.npy",
        "labels.npy",
        "probabilities-a.npy",
        "probabilities-b.npy",
    }
    assert (np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False) == pictures(5)).all()
    assert np.load(folder / "labels.npy", allow_pickle=False).tolist() == [0, 1, 2, 3, 4]
    probabilities = np.load(folder / "probabilities-b.npy", allow_pickle=False)
    assert (probabilities.dtype, probabilities.shape, probabilities.min()) == (np.float16, (5, 3), 0.25)
    described = json.loads((folder / "dataset.json").read_text())
    assert described == {**explorer.dataset, "models": ["a", "b"]}
    assert register(explorer) == run_id
    assert not any(file.is_symlink() for file in folder.iterdir())
    assert register(replace(explorer, probabilities={"a": explorer.probabilities["a"]})) != run_id


def test_a_models_own_plots_stand_in_its_run_and_are_replaced_by_newer_ones(
    store: Store,
    client: MlflowClient,
    make_entry: Callable[..., Entry],
    register: Callable[..., Registration],
    tmp_path: Path,
) -> None:
    plot = tmp_path / "superclass_confusion_a.png"
    for content in ("first", "second"):
        plot.write_text(content)
        registration = register(store, replace(make_entry("a"), plots=[plot]))
        run_id = client.get_model_version(NAME, registration.versions["a"]).run_id
        assert [file.path for file in client.list_artifacts(run_id, "plots")] == [f"plots/{plot.name}"]
        assert Path(client.download_artifacts(run_id, f"plots/{plot.name}")).read_text() == content


def test_a_moved_repository_gets_working_versions_and_says_why(
    store: Store,
    root: Path,
    tmp_path: Path,
    make_entry: Callable[..., Entry],
    register: Callable[..., Registration],
) -> None:
    first = register(store, make_entry("a"))
    moved = Store.of_repository(Path(shutil.move(root, tmp_path / "moved")))
    second = register(moved, make_entry("a"))
    client = moved.client()
    champion = client.get_model_version_by_alias(NAME, "champion")
    assert _aliases(client)["champion"] == second.versions["a"] != first.versions["a"]
    assert str(root) in champion.tags["logged_again"]
    assert _load_champion(moved).predict(pictures(1)).shape == (1, 3)
    assert not root.exists()
    assert register(moved, make_entry("a")) == second


def test_lost_artifacts_are_logged_again(
    store: Store, root: Path, tmp_path: Path, make_entry: Callable[..., Entry], register: Callable[..., Registration]
) -> None:
    (tmp_path / "confusion.png").write_bytes(b"a plot")
    entry = replace(make_entry("a"), plots=[tmp_path / "confusion.png"])
    register(store, entry)
    shutil.rmtree(root / "mlartifacts")
    register(store, entry)
    assert _load_champion(store).predict(pictures(1)).shape == (1, 3)
    client = store.client()
    run_id = client.get_model_version_by_alias(NAME, "champion").run_id
    assert {"params.yaml", "plots"} <= {file.path for file in client.list_artifacts(run_id)}
    assert [file.path for file in client.list_artifacts(run_id, "plots")] == ["plots/confusion.png"]


def test_a_changed_file_in_the_store_is_refused_in_one_line_that_says_what_to_do(
    store: Store, root: Path, make_entry: Callable[..., Entry], register: Callable[..., Registration]
) -> None:
    register(store, make_entry("a"))
    [file] = (root / "mlartifacts").rglob("model.onnx")
    content = bytearray(file.read_bytes())
    content[-100] ^= 1  # one bit of a weight: the file still loads
    assert OnnxModel(file).logits(pictures(1)).shape == (1, 3)
    file.write_bytes(content)
    OnnxModel(file)
    with pytest.raises(MlflowException) as refusal:
        _load_champion(store)
    line = r"model\.onnx was changed after it was registered \(sha256 \w{12}\.\.\., expected \w{12}\.\.\.\): .*"
    assert re.fullmatch(line, refusal.value.message)
    assert refusal.value.message.endswith(": register the model again")


@pytest.mark.parametrize("damaged", ["MLmodel", "training_pictures.npy", "model.onnx", "onnx_model.py"])
@pytest.mark.parametrize("is_gone", [True, False])
def test_a_damaged_package_is_logged_again(
    store: Store,
    root: Path,
    make_entry: Callable[..., Entry],
    register: Callable[..., Registration],
    damaged: str,
    is_gone: bool,
) -> None:
    first = register(store, make_entry("a"))
    assert register(store, make_entry("a")) == first
    file = next((root / "mlartifacts").rglob(f"artifacts/**/{damaged}"))
    content = file.read_bytes()
    if is_gone:
        file.unlink()
    else:
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # of the same size
    second = register(store, make_entry("a"))
    assert second.versions["a"] != first.versions["a"]
    assert _load_champion(store).predict(pictures(1)).shape == (1, 3)
    assert register(store, make_entry("a")) == second


def test_what_is_registered_does_not_depend_on_the_store(
    store: Store, tmp_path: Path, empty_database: Path, make_entry: Callable[..., Entry], register: Callable
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(empty_database, other)
    register(store, make_entry("a", seed=5))
    first, second = register(store, make_entry("a")), register(Store.of_repository(other), make_entry("a"))
    assert first.versions != second.versions
    assert first.metadata == second.metadata


def test_a_folder_that_cannot_be_written_is_one_clear_error(
    root: Path,
    store: Store,
    make_entry: Callable[..., Entry],
    register: Callable[..., Registration],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = make_entry("a")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UserError, match=f"cannot write the tracking database in {root}: allow it"):
        register(store, entry)
    assert [file.name for file in root.iterdir()] == ["mlflow.db"], "no lock was left there"


def test_a_server_that_is_down_is_one_clear_error(
    root: Path, make_entry: Callable[..., Entry], register: Callable[..., Registration], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9"):
        register(Store.of_repository(root), make_entry("a"))
