"""The pipeline as its user runs it: dvc repro, the registered champion, what a change re-runs, what a stage names."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from .conftest import ROOT, Clone

pytestmark = pytest.mark.slow

MODELS = tuple(yaml.safe_load((ROOT / "params.yaml").read_text())["models"])
PER_MODEL = ("train", "export", "predict", "robustness", "evaluate", "profile")
EVERYTHING = {"download", "prepare", "compare", "register"} | {
    f"{stage}@{model}" for stage in PER_MODEL for model in MODELS
}


def test_a_run_leaves_metrics_reports_and_curves(clone: Clone):
    for model in MODELS:
        metrics = json.loads((clone.root / f"reports/metrics/{model}.json").read_text())
        assert {"top1", "top5", "nll", "superclass_top1"} <= set(metrics["val"])
        assert 0 <= metrics["test"]["top1"] <= metrics["test"]["top5"] <= 1
    tables = {file.stem: file.read_text().splitlines() for file in (clone.root / "reports/tables").iterdir()}
    assert tables.pop("steps")[0] == "model,step,seconds,train_loss,train_top1,learning_rate"
    rows = {"curves": 1, "classes": 100, "superclasses": 20 * 20, "reliability": 2 * 15, "robustness": 8 * 4}
    assert {name: len(lines) - 1 for name, lines in tables.items()} == {n: 3 * count for n, count in rows.items()}
    assert tables["curves"][0].startswith("model,epoch,seconds,train_loss")
    report = (clone.root / "reports/comparison.md").read_text()
    assert "Generated pictures" in report
    pictures = re.findall(r"\]\((.*?\.png)\)", report)
    assert sorted(pictures) == sorted(f"plots/{file.name}" for file in (clone.root / "reports/plots").iterdir())
    for picture in pictures:
        assert (clone.root / "reports" / picture).is_file()
    assert "Not tested" in (clone.root / "reports/claims.md").read_text(), "the studies are of other pictures"
    shown = clone.run("dvc", "metrics", "show", "--md")
    assert all(model in shown for model in MODELS)


def test_the_interactive_plots_hold_every_model(clone: Clone, tmp_path: Path):
    clone.run("dvc", "plots", "show", "--out", str(tmp_path))
    page = (tmp_path / "index.html").read_text()
    specs = [json.JSONDecoder().raw_decode(part)[0] for part in page.split("var spec = ")[1:]]
    titles = [next(iter(plot)) for plot in yaml.safe_load((clone.root / "dvc.yaml").read_text())["plots"]]
    drawn = {spec["title"]["text"]: spec for spec in specs if "title" in spec}
    assert set(titles) - set(drawn) <= {"Top-1 while training"}, "so short a training reports nothing on its way"
    for spec in drawn.values():
        assert {row["model"] for row in spec["data"]["values"]} == set(MODELS)
        assert "<DVC_METRIC" not in json.dumps(spec)


CLASSIFY = """
import json, sys
import mlflow, numpy as np
mlflow.set_tracking_uri("sqlite:///mlflow.db")
model = mlflow.pyfunc.load_model("models:/demo-classifier@champion")
picture = np.load("data/prepared/test_images.npy")[:3]
probabilities = model.predict(picture)
info = model.metadata.metadata
version = mlflow.MlflowClient().get_model_version_by_alias("demo-classifier", "champion")
print(json.dumps({"probabilities": np.asarray(probabilities).tolist(), "model": info["model"],
                  "classes": info["class_names"], "temperature": info["temperature"],
                  "conformal": info["conformal"], "threshold": info["ood_threshold"],
                  "gate": version.tags["gate"], "description": version.description}))
"""


def test_the_registered_champion_classifies_a_picture_as_the_best_model_did(clone: Clone):
    registered = json.loads((clone.root / "reports/registered_model.json").read_text())
    answer = json.loads(clone.run(sys.executable, "-c", CLASSIFY).splitlines()[-1])
    assert answer["model"] == registered["champion"]
    assert answer["gate"] == registered["decision"]
    assert answer["description"].endswith(registered["decision"])
    assert f"{registered['champion']} is champion with " in registered["decision"]
    check = f"""
import numpy as np, json
from scipy.special import softmax
logits = np.load("data/predictions/{registered["champion"]}.npz")["test_logits"][:3]
temperature = json.load(open("reports/metrics/{registered["champion"]}.json"))["calibration"]["temperature"]
print(json.dumps(softmax(logits.astype(np.float64) / temperature, axis=1).tolist()))
"""
    expected = json.loads(clone.run(sys.executable, "-c", check).splitlines()[-1])
    for found_row, expected_row in zip(answer["probabilities"], expected, strict=True):
        assert found_row == pytest.approx(expected_row, abs=1e-5)
    assert len(answer["classes"]) == 100
    measured = json.loads((clone.root / f"reports/metrics/{registered['champion']}.json").read_text())
    assert answer["temperature"] == measured["calibration"]["temperature"]
    assert answer["threshold"] == measured["unfamiliar"]["threshold"]
    assert answer["conformal"] == {share: found["threshold"] for share, found in measured["conformal"].items()}
    assert set(answer["conformal"]) == {"90", "95"}


def test_a_second_run_has_nothing_to_do(clone: Clone):
    assert "Data and pipelines are up to date." in clone.run("dvc", "repro")


def test_a_lost_tracking_store_is_made_again(clone: Clone):
    for lost in (*clone.root.glob("mlflow.db*"), clone.root / "mlartifacts"):
        shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    assert "up to date" in clone.run("dvc", "repro")
    clone.run("dvc", "repro", "--force", "--single-item", "register")  # make register
    answer = json.loads(clone.run(sys.executable, "-c", CLASSIFY).splitlines()[-1])
    assert answer["model"] == json.loads((clone.root / "reports/registered_model.json").read_text())["champion"]
    assert clone.run("git", "status", "--porcelain") == ""


def code_that_ran(clone: Clone) -> dict[str, set[str]]:
    ran: dict[str, set[str]] = {}
    for record in clone.records.iterdir():
        ran.setdefault(record.name.rsplit(".", 1)[0], set()).update(record.read_text().splitlines())
    return ran


def test_every_stage_names_the_code_it_runs_and_no_other(clone: Clone):
    lock = yaml.safe_load((clone.root / "dvc.lock").read_text())["stages"]
    ran = code_that_ran(clone)
    assert set(ran) == set(lock) == EVERYTHING
    for stage, files in ran.items():
        named = [dep["path"] for dep in lock[stage]["deps"] if dep["path"].startswith("stages/")]
        for file in files:
            covered = any(file == path or file.startswith(f"{path}/") for path in named)
            # params.yaml is checked as a whole: every stage reads the settings of every model to refuse a mistake
            # early. Where they decide what a stage makes, it names the whole folder and its section of params.yaml.
            only_checked = re.fullmatch(r"stages/models/(\w+/)?(settings|__init__)\.py", file)
            assert covered or only_checked, f"{stage} runs {file} but does not name it"
        for path in named:
            used = any(file == path or file.startswith(f"{path}/") for file in files)
            assert used, f"{stage} names {path} but does not run it"


def behind(*stages: str) -> set[str]:
    return {*stages, "compare", "register"}


def test_a_models_learning_rate_concerns_that_model_alone(clone: Clone):
    clone.set_params({"models.vit_scratch.adamw_lr": 0.003})
    assert set(clone.repro()) == behind(*(f"{stage}@vit_scratch" for stage in PER_MODEL))


def test_a_plot_concerns_the_comparison_alone(clone: Clone):
    file = clone.root / "stages/report/plots/top1.py"
    text = file.read_text()
    assert "height=0.66" in text
    file.write_text(text.replace("height=0.66", "height=0.5"))
    assert set(clone.repro()) == behind()


def test_a_measure_concerns_no_inference(clone: Clone):
    file = clone.root / "stages/evaluation/summary.py"
    assert "round(content, 6)" in file.read_text()
    file.write_text(file.read_text().replace("round(content, 6)", "round(content, 3)"))
    assert set(clone.repro()) == behind(*(f"evaluate@{model}" for model in MODELS))


def test_a_stage_tells_a_users_mistake_in_one_line(clone: Clone):
    stderr = clone.refusal(sys.executable, "-m", "stages.train", "resnet")
    assert stderr.strip().splitlines() == [
        f"train: params.yaml has no model 'resnet': its models are {', '.join(MODELS)}"
    ]


def test_a_mistake_in_params_stops_every_stage_at_once(clone: Clone):
    before = (clone.root / "params.yaml").read_text()
    clone.set_params({"models.mobilenet_transfer.variant": "huge"})
    try:
        stderr = clone.refusal(sys.executable, "-m", "stages.train", "vit_scratch")
    finally:
        (clone.root / "params.yaml").write_text(before)
    assert "params.yaml: models.mobilenet_transfer.variant = 'huge'" in stderr
    assert "Traceback" not in stderr


def test_a_copy_without_git_is_told_what_to_do(tmp_path: Path):
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    done = subprocess.run(["make", "git"], cwd=tmp_path, text=True, capture_output=True)
    assert done.returncode != 0
    assert "git init" in done.stdout
