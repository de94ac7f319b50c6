"""The steps of CONTRIBUTING.md, "How to add a model", followed in a copy of the repository."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.changed_params import changed_params

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NAME = "conv_net"
SECTION = {
    **{"classifier": NAME, "epochs": None, "batch_size": 16, "crop_padding": 0, "flip": True},
    **{"width": 16, "lr": 0.003, "weight_decay": 0.01},
}
CHANGES = {
    "models": {NAME: SECTION},  # without the others: quicker
    "export.int8": {NAME: None},
    "data.source": "demo",
    "data.demo": {"train_per_class": 8, "test_per_class": 2},
    "data.val_fraction": 0.25,
    "robustness.images": 40,
    "compute.threads": 1,
}


def test_a_fourth_model_is_trained_exported_measured_and_compared(tmp_path):
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0"):
        if name and name != "dvc.lock" and (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tmp_path / name)
    shutil.copytree(Path(__file__).parent / NAME, tmp_path / "stages/models" / NAME)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(changed_params(CHANGES), sort_keys=False))
    dvc = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    dvc["vars"][0]["pipeline"] = {NAME: {"classifier": NAME, "engine": "torch_engine"}}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(dvc, sort_keys=False))
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command in ("git init -q", "git add -A", "git commit -qm start", "dvc repro compare"):
        done = subprocess.run(
            command.split(), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    parity = json.loads((tmp_path / f"data/onnx/{NAME}/0/export.json").read_text())["parity"]
    assert parity["n"] == 100
    assert parity["max_difference"] < 1e-3
    assert parity["top1_agreement"] > 0.999
    run = json.loads((tmp_path / f"data/runs/{NAME}/0/run.json").read_text())
    assert run["resolved"]["weights"] == "random"
    assert NAME in json.loads((tmp_path / "reports/comparison.json").read_text())["models"]
    assert NAME in (tmp_path / "reports/comparison.md").read_text()
