"""The pipeline as its user runs it: what `dvc repro` leaves, the registered champion, what a stage names, mistakes."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.special import softmax

from .conftest import MODELS, ROOT, Clone

pytestmark = pytest.mark.slow

CLASSIFY = """
import json
import mlflow, numpy as np
mlflow.set_tracking_uri("sqlite:///mlflow.db")
model = mlflow.pyfunc.load_model("models:/demo-classifier@champion")
probabilities = model.predict(np.load("data/prepared/test_images.npy")[:3])
print(json.dumps({"probabilities": np.asarray(probabilities).tolist(), **model.metadata.metadata}))
"""


def test_a_run_leaves_metrics_and_reports_with_their_figures(finished: Clone, tmp_path: Path):
    reports = finished.root / "reports"
    for model in MODELS:
        metrics = json.loads((reports / f"metrics/{model}.json").read_text())
        assert {"top1", "top5", "nll", "superclass_top1"} <= set(metrics["val"])
        assert 0 <= metrics["test"]["top1"] <= metrics["test"]["top5"] <= 1
        assert model in finished.run("dvc", "metrics", "show", "--md")
    images = re.findall(r"\]\((.*?\.png)\)", (reports / "comparison.md").read_text())
    assert sorted(images) == sorted(f"plots/{file.name}" for file in (reports / "plots").iterdir())
    finished.run("dvc", "plots", "show", "--out", str(tmp_path))
    page = (tmp_path / "index.html").read_text()
    assert all(Path(image).name in page for image in images)


def assert_champion_answers_as_it_was_measured(clone: Clone):
    champion = json.loads((clone.root / "reports/registered_model.json").read_text())["champion"]
    answer = json.loads(clone.run(sys.executable, "-c", CLASSIFY).splitlines()[-1])
    measured = json.loads((clone.root / f"reports/metrics/{champion}.json").read_text())
    assert answer["model"] == champion
    assert answer["temperature"] == measured["calibration"]["temperature"]
    assert answer["conformal"] == {share: found["threshold"] for share, found in measured["conformal"].items()}
    assert len(answer["class_names"]) == 100
    logits = np.load(clone.root / f"data/predictions/{champion}.npz")["test_logits"][:3].astype(np.float64)
    assert np.array(answer["probabilities"]) == pytest.approx(softmax(logits / answer["temperature"], axis=1), abs=1e-5)


def test_the_registered_champion_answers_as_the_best_model_was_measured(finished: Clone):
    assert_champion_answers_as_it_was_measured(finished)


def test_a_lost_tracking_store_is_rebuilt(clone: Clone):
    for lost in (*clone.root.glob("mlflow.db*"), clone.root / "mlartifacts"):
        shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    assert clone.repro() == set(), "DVC does not know of the store"
    assert clone.repro("--force", "--single-item", "register") == {"register"}  # make register
    assert_champion_answers_as_it_was_measured(clone)
    assert clone.run("git", "status", "--porcelain") == ""


def test_every_stage_names_the_code_it_runs_and_no_other(finished: Clone):
    lock = yaml.safe_load((finished.root / "dvc.lock").read_text())["stages"]
    ran: dict[str, set[str]] = {}
    for record in Path(finished.environment["RECORDS"]).iterdir():
        ran.setdefault(record.name.rsplit(".", 1)[0], set()).update(record.read_text().splitlines())
    assert set(ran) == set(lock)
    for stage, files in ran.items():
        named = [dep["path"] for dep in lock[stage]["deps"] if dep["path"].startswith("stages/")]
        for file in files:
            covered = any(file == path or file.startswith(f"{path}/") for path in named)
            # Every stage checks the settings of every model, to refuse a mistake early. Where they decide what a stage
            # makes, it names the whole folder and its section of params.yaml.
            only_checked = re.fullmatch(r"stages/models/(\w+/settings|__init__)\.py", file)
            is_text = file.endswith("__init__.py") and re.fullmatch(r'(""".*?"""\s*)?', (ROOT / file).read_text(), re.S)
            assert covered or only_checked or is_text, f"{stage} runs {file} but does not name it"
        for path in named:
            used = any(file == path or file.startswith(f"{path}/") for file in files)
            assert used, f"{stage} names {path} but does not run it"


def test_a_stage_reports_a_users_mistake_in_one_line(finished: Clone):
    said = finished.run(sys.executable, "-m", "stages.train", "resnet", status=1)
    assert said == f"train: params.yaml has no model 'resnet': its models are {', '.join(MODELS)}\n"


def test_a_copy_without_git_is_told_what_to_do(tmp_path: Path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    done = subprocess.run(["make", "git"], cwd=tmp_path, text=True, capture_output=True)
    assert done.returncode != 0
    assert "git init" in done.stdout
