"""From the champion back to data, code, params and training, and forward again to the same weights."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from .conftest import MODELS, Clone

pytestmark = pytest.mark.slow

NAME = "demo-classifier"


def client_of(clone: Clone) -> MlflowClient:
    return MlflowClient(f"sqlite:///{clone.root / 'mlflow.db'}")


def fresh_clone(finished: Clone, root: Path) -> Clone:
    """A git clone of the last commit, with nothing that git ignores."""
    subprocess.run(["git", "clone", "-q", finished.root, root], check=True)
    return Clone(root)


def test_the_run_of_a_model_records_all_of_its_training(finished: Clone):
    client = client_of(finished)
    data = json.loads((finished.root / "data/prepared/dataset.json").read_text())
    for model in MODELS:
        version = client.get_model_version_by_alias(NAME, model)
        run = client.get_run(version.run_id)
        record = json.loads((finished.root / f"data/runs/{model}/0/run.json").read_text())
        tags = run.data.tags
        assert "replayed" not in tags
        assert tags["git_dirty"] == "false"
        assert tags["dvc_stage"] == f"train@{model}"
        assert tags["data_sha256"] == data["data_sha256"]
        assert tags["weights_sha256"] == record["weights_sha256"] == version.tags["weights_sha256"]
        assert finished.run("git", "cat-file", "-t", tags["git_commit"]).strip() == "commit"
        assert run.data.params == {key: str(value) for key, value in record["params"].items()}
        assert {"seed", "epochs", "train_fraction", "data.seed", "compute.threads"} <= set(run.data.params)
        [used] = run.inputs.dataset_inputs
        assert json.loads(used.dataset.profile)["sha256"] == data["data_sha256"]
        # The same names for all of them: MLflow's pages draw one chart of each.
        curves = {"train_loss", "train_top1", "val_loss", "val_top1", "learning_rate"}
        assert curves | {"val/top1", "test/top1"} <= set(run.data.metrics)
        files = {file.path for folder in ("", "plots") for file in client.list_artifacts(run.info.run_id, folder)}
        assert {"params.yaml", f"plots/superclass_confusion_{model}.png"} <= files
        assert [output.model_id for output in run.outputs.model_outputs] == [version.source.removeprefix("models:/")]


def test_a_fresh_clone_with_everything_cached_ends_with_the_same_champion_and_curves(finished: Clone, tmp_path: Path):
    fresh = fresh_clone(finished, tmp_path / "fresh")
    shutil.copytree(finished.root / ".dvc/cache", fresh.root / ".dvc/cache")
    fresh.run("dvc", "checkout")  # what `dvc pull` ends with
    assert fresh.repro() == {"register"}
    assert fresh.run("git", "status", "--porcelain") == "", "the same models, the same file"
    old, new = client_of(finished), client_of(fresh)
    for model in (*MODELS, "champion"):
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
    experiment = [new.get_experiment_by_name("demo").experiment_id]
    runs = len(new.search_runs(experiment))
    fresh.repro("--force", "--single-item", "register")
    assert len(new.search_runs(experiment)) == runs == len(MODELS) + 1


def test_the_commit_and_the_params_of_the_champions_run_give_its_weights_again(finished: Clone, tmp_path: Path):
    client = client_of(finished)
    version = client.get_model_version_by_alias(NAME, "champion")
    run = client.get_run(version.run_id)
    model, again = version.tags["model"], fresh_clone(finished, tmp_path / "again")
    again.run("git", "checkout", "-q", run.data.tags["git_commit"])
    params = client.download_artifacts(run.info.run_id, "params.yaml", str(tmp_path))
    shutil.copy(params, again.root / "params.yaml")
    again.repro(f"train@{model}")
    record = json.loads((again.root / f"data/runs/{model}/0/run.json").read_text())
    assert record["data_sha256"] == run.data.tags["data_sha256"]
    assert record["weights_sha256"] == version.tags["weights_sha256"]


def test_a_candidate_that_the_gate_refuses_is_challenger(clone: Clone):
    before = client_of(clone).get_model_version_by_alias(NAME, "champion")
    # Another training of the champion's model: whichever is best now has the present champion to beat.
    model = before.tags["model"]
    clone.set_params({f"models.{model}.flip": False, "registry.gate": "significant", "registry.alpha": 1e-12})
    per_model = ("train", "export", "predict", "robustness", "evaluate", "profile")
    assert clone.repro() == {*(f"{stage}@{model}" for stage in per_model), "compare", "register"}
    client = client_of(clone)
    assert client.get_model_version_by_alias(NAME, "champion").version == before.version
    challenger = client.get_model_version_by_alias(NAME, "challenger")
    report = json.loads((clone.root / "reports/registered_model.json").read_text())
    assert report["decision"] in challenger.tags.values()
    assert report["champion_weights_sha256"] == before.tags["weights_sha256"]
    said = clone.run(sys.executable, "-m", "stages.tools.rollback", status=1)
    assert said.startswith("rollback: no version of demo-classifier was champion before")
    assert len(said.splitlines()) == 1
