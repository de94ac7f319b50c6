"""What `register` makes of trained models in a store: versions, runs, metrics, plots, the comparison's run."""

import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from stages.common.errors import UserError
from stages.tracking import explorer
from stages.tracking.store import Store

from .conftest import DemoModel, random_images, with_about

NAME = DemoModel.name
METRICS = {
    **{"val/top1": 0.5, "val/top1_low": 0.49, "val/top1_high": 0.51},
    **{"test/top1": 0.4, "test/top1_low": 0.39, "test/top1_high": 0.41},
}


def test_every_model_is_a_version_with_its_name_and_the_best_on_val_is_champion(demo):
    a, b = demo.entry("a", val=0.2, test=0.9, seed=1), demo.entry("b", val=0.6, test=0.1, seed=2)
    first = demo.register(a, b, demo.entry("c", val=0.6, seed=3))
    assert demo.aliases == {"a": "1", "b": "2", "c": "3", "champion": "2"}
    assert first.reason == "b is champion with 60.00% top-1 on val, before c (60.00%), a (20.00%)"
    model = demo.load_champion()
    assert model.metadata.metadata == b.package.metadata
    assert model.predict(random_images(2)).shape == (2, 3)
    tags = demo.version("2").tags
    for key in ("model", "source", "weights_sha256", "onnx_sha256", "data_sha256", "package_sha256"):
        assert tags[key] == b.package.metadata[key]


def test_registering_again_changes_nothing_not_even_at_once(demo):
    def content():
        versions = demo.client.search_model_versions(f"name = '{NAME}'")
        runs = demo.client.search_runs([demo.store.experiment(demo.client, "demo")])
        return [dict(version) for version in versions], {run.info.run_id for run in runs}

    entries = demo.entry("a", seed=1), demo.entry("b", seed=2)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: demo.register(*entries), range(2))
    assert first == second
    assert "MLFLOW_TRACKING_URI" not in os.environ, "as it was"
    before = content()
    assert (len(before[0]), len(before[1])) == (2, 3), "two models and their comparison"
    assert demo.register(*entries) == first
    assert content() == before


def test_a_version_describes_itself_and_its_example_runs(demo):
    demo.register(demo.entry("a", val=0.5, test=0.4))
    version = demo.version("1")
    assert "Image classifier `a`, trained on demo: 3 classes in 2 superclasses" in version.description
    assert version.tags["onnx_sha256"][:12] in version.description
    assert "Test top-1: 40.00% (95 % interval 39.00% to 41.00%, n = 2,000)" in version.description
    [example] = re.findall(r"```python\n(.*?)```", version.description, re.DOTALL)
    names = {"mlflow": mlflow, "images": random_images(1)}
    with demo.store.exclusive():
        exec(example.replace('"top_k": 5', '"top_k": 3'), names)
    assert names["model"].metadata.metadata["onnx_sha256"] == version.tags["onnx_sha256"]
    demo.register(demo.entry("a", val=0.5, test=0.3))
    assert "Test top-1: 30.00%" in demo.version("1").description


def test_measured_metrics_stand_in_run_and_model_and_new_ones_replace_them(demo):
    entry = demo.entry("a", val=0.5, test=0.4)
    demo.register(entry)
    version = demo.version("1")
    run = demo.client.get_run(version.run_id)
    assert METRICS.items() <= run.data.metrics.items()
    assert run.info.end_time == 1706933226000, "the run keeps the time of the training"
    (output,) = run.outputs.model_outputs
    assert version.source == f"models:/{output.model_id}"
    demo.register(with_about(entry, temperature=3.0))
    second = demo.version("2")
    assert second.run_id == version.run_id
    for source in (version.source, second.source):
        logged = demo.client.get_logged_model(source.removeprefix("models:/"))
        assert METRICS.items() <= {metric.key: metric.value for metric in logged.metrics}.items()
    for _ in range(2):
        demo.register(demo.entry("a", val=0.3, test=0.4))
    assert demo.aliases["a"] == "1", "other metrics make no other version"
    assert demo.client.get_run(version.run_id).data.metrics["val/top1"] == 0.3
    assert [metric.value for metric in demo.client.get_metric_history(version.run_id, "val/top1")][-1] == 0.3


def test_the_comparison_has_a_run_with_every_file_once(demo, tmp_path):
    def run_id():
        demo.register(demo.entry("a"))
        return demo.version("1").tags["comparison_run_id"]

    images, labels = tmp_path / "test_images.npy", tmp_path / "test_labels.npy"
    np.save(images, random_images(3))
    np.save(labels, np.arange(3))
    # As float16 the first two rows have equals, and in the second one the wrong class would be first.
    probabilities = np.array([[0.3, 0.30001, 0.39999], [0.45001, 0.45002, 0.09997], [0.1, 0.2, 0.7]], np.float32)
    assert probabilities.astype(np.float16).argmax(axis=1).tolist() == [2, 0, 2]
    demo.comparison |= explorer.write(tmp_path / "explorer", images, labels, {"source": "demo"}, {"a": probabilities})
    first = run_id()
    assert run_id() == first
    assert {file.path for file in demo.client.list_artifacts(first)} == {"comparison.md", "plots", "explorer"}
    folder = Path(demo.client.download_artifacts(first, "explorer", str(demo.folder)))
    assert not any(file.is_symlink() for file in folder.iterdir())
    assert (np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False) == random_images(3)).all()
    assert np.load(folder / "labels.npy", allow_pickle=False).tolist() == [0, 1, 2]
    assert json.loads((folder / "dataset.json").read_text()) == {"source": "demo", "models": ["a"]}
    stored = np.load(folder / "probabilities-a.npy", allow_pickle=False)
    assert stored.dtype == np.float16
    assert stored.argmax(axis=1).tolist() == [2, 1, 2]
    assert np.abs(stored - probabilities).max() < 5e-4
    demo.comparison["plots/top1.png"].write_text("another plot")
    assert run_id() != first


def test_the_report_is_the_note_of_the_comparisons_run_as_far_as_it_fits(demo):
    def note(*sections):
        demo.comparison["comparison.md"].write_text("\n\n".join(["# Report", *sections]))
        demo.register(demo.entry("a"))
        run_id = demo.version("1").tags["comparison_run_id"]
        return MlflowClient(demo.store.uri).get_run(run_id).data.tags["mlflow.note.content"]

    links = "![Top-1](plots/top1.png) [checks](../checks.md) [paper](https://arxiv.org/abs/1)"
    named = "# Report\n\nTop-1 (artifact `plots/top1.png`) checks [paper](https://arxiv.org/abs/1)"
    assert note(links) == named
    fits, long = "## Fits\n\n" + "x" * 7000, "### Does not\n\n" + "y" * 1000
    assert note(links, fits, long) == f"{named}\n\n{fits}\n\nThe rest is in the artifact `comparison.md`."
    [whole] = [
        file for file in demo.client.list_artifacts(demo.version("1").tags["comparison_run_id"]) if not file.is_dir
    ]
    assert whole.path == "comparison.md"


def test_lost_artifacts_are_logged_again_and_a_models_own_plots_are_replaced_by_newer_ones(demo, root, tmp_path):
    plot = tmp_path / "confusion_a.png"
    entry = replace(demo.entry("a"), plots=[plot])
    for content in ("first", "second", "second"):
        plot.write_text(content)
        demo.register(entry)
        run_id = demo.client.get_model_version_by_alias(NAME, "champion").run_id
        assert Path(demo.client.download_artifacts(run_id, f"plots/{plot.name}")).read_text() == content
        shutil.rmtree(root / "mlartifacts", ignore_errors=content == "first")
    demo.register(entry)
    assert demo.load_champion().predict(random_images(1)).shape == (1, 3)
    assert {"params.yaml", "plots"} <= {file.path for file in demo.client.list_artifacts(run_id)}


def test_a_moved_repository_gets_working_versions_and_says_why(demo, root, tmp_path):
    demo.register(demo.entry("a"))
    moved = DemoModel(Store.of_repository(Path(shutil.move(root, tmp_path / "moved"))), demo.folder)
    second = moved.register(demo.entry("a"))
    assert moved.aliases["champion"] == second.champion == "2"
    assert moved.version("2").tags["logged_again"] == "version 1: its artifacts are gone"
    assert moved.load_champion().predict(random_images(1)).shape == (1, 3)
    assert not root.exists()
    assert moved.register(demo.entry("a")) == second


def test_an_upload_that_breaks_off_leaves_no_version(demo, monkeypatch):
    def break_off(*_):
        raise ConnectionError("connection reset by peer")

    with monkeypatch.context() as network:
        network.setattr(MlflowClient, "log_model_artifacts", break_off)
        with pytest.raises(ConnectionError):
            demo.register(demo.entry("a"))
    assert demo.client.search_model_versions(f"name = '{NAME}'") == []
    logged = demo.client.search_logged_models([demo.store.experiment(demo.client, "demo")])
    assert [str(model.status) for model in logged] == ["FAILED"]
    assert demo.register(demo.entry("a")).champion == "1"


@pytest.mark.parametrize(("damaged", "is_gone"), [("MLmodel", True), ("seen_images.npy", False), ("run", True)])
def test_a_damaged_package_is_logged_again(demo, root, damaged, is_gone):
    first = demo.register(demo.entry("a"))
    for file in (root / "mlartifacts").rglob(f"artifacts/**/{damaged}"):
        content = file.read_bytes()
        file.unlink()
        if not is_gone:
            file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # of the same size
    if damaged == "run":
        demo.client.delete_run(demo.version("1").run_id)
    second = demo.register(demo.entry("a"))
    assert (first.champion, second.champion) == ("1", "2")
    assert demo.load_champion().predict(random_images(1)).shape == (1, 3)
    assert demo.register(demo.entry("a")) == second


def test_a_folder_that_cannot_be_written_or_a_server_that_is_down_is_one_clear_error(demo, root, monkeypatch):
    entry, files = demo.entry("a"), set(root.iterdir())
    with monkeypatch.context() as read_only:
        read_only.setattr("os.access", lambda *_: False)
        with pytest.raises(UserError, match=f"cannot write the tracking database or its locks in {root}: allow it"):
            demo.register(entry)
    assert set(root.iterdir()) == files
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9"):
        Store.of_repository(root).client()


def test_the_seeds_of_a_model_are_children_of_one_run_with_their_mean_and_spread(demo):
    spread = {"val": {"mean": 0.45, "std": 0.05}, "test": {"mean": 0.4, "std": 0.02}}
    entry, others = demo.entry("a", seed=1), [demo.entry("a", seed=seed).training for seed in (2, 3)]
    entry = replace(
        entry, others=others, package=replace(entry.package, metrics=entry.package.metrics | {"seeds": spread})
    )
    for _ in range(2):
        demo.register(entry)
        runs = demo.client.search_runs([demo.store.experiment(demo.client, "demo")])
        [parent] = [run for run in runs if run.info.run_name == "a, 3 seeds"]
        assert parent.info.status == "FINISHED"
        expected = {"val/top1_mean": 0.45, "val/top1_std": 0.05, "test/top1_mean": 0.4, "test/top1_std": 0.02}
        assert parent.data.metrics == expected
        children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
        assert {run.data.tags["weights_sha256"] for run in children} == {
            training.weights_sha256 for training in (entry.training, *others)
        }
        assert len(runs) == 1 + 3 + 1, "the parent, the seeds and the comparison"
    assert demo.aliases == {"a": "1", "champion": "1"}, "one version, of the chosen seed"
    spread["val"]["mean"] = 0.46  # measured anew
    demo.register(entry)
    assert demo.client.get_run(parent.info.run_id).data.metrics["val/top1_mean"] == 0.46
