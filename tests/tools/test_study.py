"""`make study`: which experiments it queues, and what becomes of their results."""

import json
import re

import dvc.api
import pandas as pd
import pytest

from stages.common.errors import UserError
from stages.tools import study

MODELS = ("vit_scratch", "vit_transfer", "mobilenet_transfer")


class Dvc:
    """Answers as DVC would, and trains in no time: top-1 is a tenth of the epochs."""

    def __init__(self) -> None:
        self.queued: dict[str, dict[str, str]] = {}
        self.commands: list[list[str]] = []
        self.failing: set[str] = set()

    def __call__(self, *arguments: str) -> str:
        self.commands.append(list(arguments))
        if arguments[:2] == ("exp", "run"):
            options = list(arguments)
            settings = dict(options[index + 1].split("=") for index, option in enumerate(options) if option == "-S")
            self.queued[options[options.index("--name") + 1]] = settings | {"target": options[-1]}
        return json.dumps([{"rev": "baseline", "experiments": [self.shown(name) for name in self.queued]}])

    def shown(self, name: str) -> dict[str, object]:
        settings = {key: json.loads(value) for key, value in self.queued[name].items() if key != "target"}
        params: dict[str, object] = {}
        for key, value in settings.items():
            *sections, last = key.split(".")
            place = params
            for section in sections:
                place = place.setdefault(section, {})
            place[last] = value
        state = "failed" if name in self.failing else "success"
        data = {"params": {"params.yaml": {"data": params}}}
        return {"name": name, "executor": {"state": state}, "revs": [{"rev": name, "data": data}]}

    def read(self, path: str, rev: str) -> str:
        settings = self.queued[rev]
        epochs = next((int(value) for key, value in settings.items() if key.endswith("epochs")), 1)
        if path.endswith("run.json"):
            return json.dumps(
                {
                    "epochs": epochs,
                    "seconds": 60.0 * epochs,
                    "resolved": {"precision": "float32", "threads": 2},
                    "hardware": {"cpu": "Some CPU"},
                    "data_sha256": "d" * 64,
                    "params": {"seed": 0},
                }
            )
        return json.dumps({"val": {"top1": epochs / 100}, "test": {"top1": epochs / 200}})


@pytest.fixture
def dvc_of(monkeypatch, tmp_path):
    fake = Dvc()
    shipped = (study.paths.PARAMS).read_text()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(shipped)
    monkeypatch.setattr(study, "dvc", fake)
    monkeypatch.setattr(study, "command_output", lambda *command: "0123456789\n")
    monkeypatch.setattr(study, "wait", lambda name, again: None)
    monkeypatch.setattr(dvc.api, "read", fake.read)
    return fake


def run(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["study", *arguments])
    study.main()


def test_every_model_is_trained_on_every_share(dvc_of, monkeypatch):
    run(monkeypatch, "data_efficiency", "--copy", "data/external")
    assert len(dvc_of.queued) == 3 * 4
    smallest = dvc_of.queued["study-data-efficiency-vit-scratch-0_01"]
    assert smallest == {"budget.train_fraction": "0.01", "budget.epochs": "10", "target": "evaluate@vit_scratch"}
    assert all(command[5:7] == ["-C", "data/external"] for command in dvc_of.commands if command[:2] == ["exp", "run"])
    table = pd.read_csv("reports/studies/data_efficiency.csv")
    assert list(table["model"]) == [model for model in MODELS for _ in range(4)]
    assert list(table["value"][:4]) == [0.01, 0.05, 0.2, 1.0]
    assert list(table["val_top1"][:4]) == [0.1, 0.05, 0.02, 0.01]
    assert set(table["data"]) == {"d" * 16}
    assert set(table["weights"]) == {"random"}


def test_all_studies_leave_a_table_and_a_picture(dvc_of, monkeypatch, tmp_path):
    run(monkeypatch)
    left = sorted(file.name for file in (tmp_path / "reports/studies").iterdir())
    assert left == sorted(f"{name}.{kind}" for name in study.STUDIES for kind in ("csv", "png"))
    epochs = pd.read_csv("reports/studies/epochs.csv")
    assert list(epochs["value"]) == list(epochs["epochs"]) == [1, 3, 10]
    assert list(epochs["minutes"]) == [1, 3, 10]
    assert {dvc_of.queued[name]["models.vit_scratch.patch_size"] for name in dvc_of.queued if "epochs" in name} == {"8"}
    assert set(epochs["patch_size"]) == {8}
    assert "patch_size" not in pd.read_csv("reports/studies/patch_size.csv")


def test_what_was_trained_already_is_not_queued_again(dvc_of, monkeypatch):
    run(monkeypatch, "epochs")
    before = len(dvc_of.commands)
    run(monkeypatch, "epochs")
    assert [command[:2] for command in dvc_of.commands[before:]] == [["exp", "show"]]


def test_a_failed_experiment_is_named_and_nothing_is_written(dvc_of, monkeypatch, tmp_path):
    dvc_of.failing = {"study-patch-size-vit-scratch-8"}
    with pytest.raises(UserError, match=re.escape("failed: study-patch-size-vit-scratch-8; `dvc queue logs NAME`")):
        run(monkeypatch, "patch_size")
    assert not (tmp_path / "reports").exists()


def test_an_unknown_study_is_told_which_there_are(dvc_of, monkeypatch):
    with pytest.raises(UserError, match="there is no study 'depth': choose from data_efficiency, patch_size, epochs"):
        run(monkeypatch, "depth")
