"""`make study`: which experiments it queues, and what becomes of their results."""

import json
import re

import pandas as pd
import pytest

from stages.common import paths
from stages.common.errors import UserError
from stages.tools import experiments, study

MODELS = ("vit_scratch", "vit_transfer", "mobilenet_transfer")


class Dvc:
    """Answers as DVC would, and trains in no time: top-1 is a hundredth of the epochs."""

    def __init__(self) -> None:
        self.queued: dict[str, dict[str, str]] = {}
        self.commands: list[tuple[str, ...]] = []
        self.failing: set[str] = set()

    def output(self, *command: str) -> str:
        if command[0] == "git":
            return "0123456789\n"
        self.commands.append(command)
        if "--queue" in command:
            settings = dict(option[12:].split("=") for option in command if option.startswith("--set-param="))
            self.queued[command[command.index("--name") + 1]] = settings | {"target": command[-1]}
        return json.dumps([{"rev": "baseline", "experiments": [self.shown(name) for name in self.queued]}])

    def epochs(self, name: str) -> int:
        return next((int(value) for key, value in self.queued[name].items() if key.endswith("epochs")), 1)

    def shown(self, name: str) -> dict[str, object]:
        file = f"reports/metrics/{self.queued[name]['target'].partition('@')[2]}.json"
        top1 = {"val": {"top1": self.epochs(name) / 100}, "test": {"top1": self.epochs(name) / 200}}
        state = "failed" if name in self.failing else "success"
        return {
            "name": name,
            "executor": {"state": state},
            "revs": [{"rev": name, "data": {"metrics": {file: {"data": top1}}}}],
        }

    def training(self, rev: str, model: str) -> dict[str, object]:
        return {
            "epochs": self.epochs(rev),
            "seconds": 60.0 * self.epochs(rev),
            "resolved": {"precision": "float32", "threads": 2},
            "hardware": {"cpu": "Some CPU"},
            "data_sha256": "d" * 64,
            "params": {"seed": 0},
        }


@pytest.fixture
def fake(monkeypatch, tmp_path) -> Dvc:
    fake = Dvc()
    (tmp_path / "params.yaml").write_text(paths.PARAMS.read_text())
    monkeypatch.chdir(tmp_path)
    for name in ("output", "training"):
        monkeypatch.setattr(experiments, name, getattr(fake, name))
    monkeypatch.setattr(experiments, "run_queue", lambda jobs, again: None)
    return fake


def run(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["study", *arguments])
    study.main()


def test_every_study_leaves_a_table_and_a_figure_and_none_is_trained_twice(fake, monkeypatch, tmp_path):
    run(monkeypatch, "--copy", "data/external")
    left = sorted(file.name for file in (tmp_path / "reports/studies").iterdir())
    assert left == sorted(f"{name}.{kind}" for name in study.STUDIES for kind in ("csv", "png"))
    assert len(fake.queued) == 3 * 4 + 2 + 3
    smallest = fake.queued["study-data-efficiency-vit-scratch-0_01"]
    assert smallest == {"budget.train_fraction": "0.01", "budget.epochs": "10", "target": "evaluate@vit_scratch"}
    assert all("--copy-paths=data/external" in command for command in fake.commands if "--queue" in command)
    table = pd.read_csv("reports/studies/data_efficiency.csv")
    assert list(table["model"]) == [model for model in MODELS for _ in range(4)]
    assert table[["value", "val_top1"]].values[:4].tolist() == [[0.01, 0.1], [0.05, 0.05], [0.2, 0.02], [1.0, 0.01]]
    assert (set(table["data"]), set(table["weights"])) == ({"d" * 16}, {"random"})
    epochs = pd.read_csv("reports/studies/epochs.csv")
    assert epochs[["value", "epochs", "minutes"]].values.tolist() == [[n, n, n] for n in (1, 3, 10)]
    assert {fake.queued[name]["models.vit_scratch.patch_size"] for name in fake.queued if "epochs" in name} == {"8"}
    assert set(epochs["patch_size"]) == {8}
    assert "patch_size" not in pd.read_csv("reports/studies/patch_size.csv")
    before = len(fake.commands)
    run(monkeypatch)
    assert not any("--queue" in command for command in fake.commands[before:])


def test_a_failed_experiment_is_named_nothing_is_written_and_it_is_queued_again(fake, monkeypatch, tmp_path):
    fake.failing = {"study-patch-size-vit-scratch-8"}
    with pytest.raises(UserError, match=re.escape("study-patch-size-vit-scratch-8 failed or has not ended")):
        run(monkeypatch, "patch_size")
    assert not (tmp_path / "reports").exists()
    fake.failing = set()
    run(monkeypatch, "patch_size")
    assert len(pd.read_csv("reports/studies/patch_size.csv")) == 2


def test_an_unknown_study_is_told_which_there_are(fake, monkeypatch):
    with pytest.raises(UserError, match="there is no study 'depth': choose from data_efficiency, patch_size, epochs"):
        run(monkeypatch, "depth")
