"""From the champion back to data, code, params and training, and forward again to the same weights."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from .conftest import ROOT, Clone

pytestmark = pytest.mark.slow

MODELS = tuple(yaml.safe_load((ROOT / "params.yaml").read_text())["models"])
NAME = "demo-classifier"
LOAD = f"""
import mlflow, numpy as np
mlflow.set_tracking_uri("sqlite:///mlflow.db")
model = mlflow.pyfunc.load_model("models:/{NAME}@champion")
print(model.predict(np.load("data/prepared/test_images.npy")[:2]).shape)
"""


def client_of(clone: Clone) -> MlflowClient:
    return MlflowClient(f"sqlite:///{clone.root / 'mlflow.db'}")


def copy_of(clone: Clone, root: Path) -> Clone:
    """A fresh clone of the clone's last commit, with nothing that git ignores."""
    subprocess.run(["git", "clone", "-q", clone.root, root], check=True)
    return Clone(root, clone.records)


@pytest.mark.parametrize("model", MODELS)
def test_the_run_of_a_model_tells_all_of_its_training(clone: Clone, model: str):
    client = client_of(clone)
    version = client.get_model_version_by_alias(NAME, model)
    run = client.get_run(version.run_id)
    record = json.loads((clone.root / f"data/runs/{model}/run.json").read_text())
    tags, data = run.data.tags, json.loads((clone.root / "data/prepared/dataset.json").read_text())
    assert "replayed" not in tags
    assert tags["git_dirty"] == "false"
    assert tags["dvc_stage"] == f"train@{model}"
    assert tags["data_sha256"] == data["data_sha256"] == version.tags["data_sha256"]
    assert tags["weights_sha256"] == record["weights_sha256"] == version.tags["weights_sha256"]
    assert len(tags["params_sha256"]) == 64
    assert clone.run("git", "cat-file", "-t", tags["git_commit"]).strip() == "commit"
    assert run.data.params == {key: str(value) for key, value in record["params"].items()}
    assert {"seed", "epochs", "train_fraction", "data.seed", "compute.threads", "batch_size"} <= set(run.data.params)
    [used] = run.inputs.dataset_inputs
    assert json.loads(used.dataset.profile)["sha256"] == data["data_sha256"]
    # The same names for all of them: MLflow's pages draw one chart of each.
    curves = {"train_loss", "train_top1", "val_loss", "val_top1", "learning_rate"}
    assert curves | {"val/top1", "test/top1", "system/cpu_utilization_percentage"} <= set(run.data.metrics)
    files = {file.path for folder in ("", "plots") for file in client.list_artifacts(run.info.run_id, folder)}
    assert {"params.yaml", f"plots/superclass_confusion_{model}.png"} <= files
    assert [output.model_id for output in run.outputs.model_outputs] == [version.source.removeprefix("models:/")]


def test_the_comparison_holds_what_the_app_shows(clone: Clone):
    client = client_of(clone)
    run_id = client.get_model_version_by_alias(NAME, "champion").tags["comparison_run_id"]
    names = {file.path for folder in ("", "explorer", "tables") for file in client.list_artifacts(run_id, folder)}
    assert {"comparison.md", "comparison.json", "claims.md", "robustness.json", "metrics", "plots"} <= names
    assert {"explorer/images.npy", "explorer/labels.npy", "explorer/dataset.json", "tables/curves.csv"} <= names
    assert {f"explorer/probabilities-{model}.npy" for model in MODELS} <= names


def test_a_fresh_clone_with_everything_cached_ends_with_a_champion_and_the_original_curves(
    clone: Clone, tmp_path: Path
):
    fresh = copy_of(clone, tmp_path / "fresh")
    shutil.copytree(clone.root / ".dvc/cache", fresh.root / ".dvc/cache")
    fresh.run("dvc", "checkout")  # what `dvc pull` ends with
    said = fresh.run("dvc", "repro")
    assert [line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage '")] == ["register"]
    assert "(2, 100)" in fresh.run(sys.executable, "-c", LOAD)
    assert fresh.run("git", "status", "--porcelain") == "", "the same models, the same file"
    old, new = client_of(clone), client_of(fresh)
    for model in MODELS:
        former = old.get_run(old.get_model_version_by_alias(NAME, model).run_id)
        rebuilt = new.get_run(new.get_model_version_by_alias(NAME, model).run_id)
        assert rebuilt.data.tags["replayed"] == "true"
        assert (rebuilt.info.start_time, rebuilt.info.end_time) == (former.info.start_time, former.info.end_time)
        assert rebuilt.data.params == former.data.params
        curves = [
            [(point.step, point.value) for point in store.get_metric_history(run.info.run_id, "val_top1")]
            for store, run in ((old, former), (new, rebuilt))
        ]
        # The history is written with six digits.
        assert curves[0] == [(step, pytest.approx(value, rel=1e-5)) for step, value in curves[1]]
    runs = len(new.search_runs([new.get_experiment_by_name("demo").experiment_id]))
    fresh.run("dvc", "repro", "--force", "--single-item", "register")
    assert len(new.search_runs([new.get_experiment_by_name("demo").experiment_id])) == runs == len(MODELS) + 1


def test_the_commit_and_the_params_of_the_champions_run_give_its_weights_again(clone: Clone, tmp_path: Path):
    client = client_of(clone)
    version = client.get_model_version_by_alias(NAME, "champion")
    run = client.get_run(version.run_id)
    model, again = version.tags["model"], copy_of(clone, tmp_path / "again")
    again.run("git", "checkout", "-q", run.data.tags["git_commit"])
    params = client.download_artifacts(run.info.run_id, "params.yaml", str(tmp_path))
    shutil.copy(params, again.root / "params.yaml")
    again.run("dvc", "repro", f"train@{model}")
    record = json.loads((again.root / f"data/runs/{model}/run.json").read_text())
    assert record["data_sha256"] == version.tags["data_sha256"]
    assert record["weights_sha256"] == version.tags["weights_sha256"]


def test_a_newcomer_that_the_gate_of_params_yaml_refuses_is_challenger(clone: Clone, tmp_path: Path):
    copy = clone.copy(tmp_path / "copy")
    before = client_of(copy).get_model_version_by_alias(NAME, "champion")
    # Another training of the champion's model: whoever is best now has the champion of before to beat.
    other = {f"models.{before.tags['model']}.flip": False}
    copy.set_params({**other, "registry.gate": "significant", "registry.alpha": 1e-12})
    copy.run("dvc", "repro")
    after = client_of(copy).get_model_version_by_alias(NAME, "champion")
    assert after.version == before.version
    challenger = client_of(copy).get_model_version_by_alias(NAME, "challenger")
    assert "(gate: significant at 1e-12)" in challenger.tags["gate"]
    report = json.loads((copy.root / "reports/registered_model.json").read_text())
    assert report["decision"] == challenger.tags["gate"]
    assert report["champion_weights_sha256"] == before.tags["weights_sha256"]


def test_rolling_back_without_a_former_champion_is_one_line(clone: Clone):
    said = clone.refusal(sys.executable, "-m", "stages.tools.rollback")
    assert said.startswith("rollback: no version of demo-classifier was champion before: choose with --to one of ")
    assert len(said.splitlines()) == 1
