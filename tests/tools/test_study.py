"""`make study`: which experiments it queues, and what becomes of their results."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from stages.common import paths
from stages.common.errors import UserError
from stages.evaluation import studies
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
        values = (value for key, value in self.queued[name].items() if key.endswith("epochs") and value != "null")
        return next(map(int, values), 1)

    def shown(self, name: str) -> dict[str, object]:
        file = f"reports/metrics/{self.queued[name]['target'].partition('@')[2]}.json"
        seeds = range(int(self.queued[name]["budget.seeds"]))
        top1 = {"val": self.epochs(name) / 100, "test": self.epochs(name) / 200}
        by_seed = {split: {"top1": {str(seed): share + seed / 100 for seed in seeds}} for split, share in top1.items()}
        state = "failed" if name in self.failing else "success"
        return {
            "name": name,
            "executor": {"state": state},
            "revs": [{"rev": name, "data": {"metrics": {file: {"data": {"seeds": by_seed}}}}}],
        }

    def run(self, rev: str, folder: Path) -> dict[str, object]:
        own = {key.rpartition(".")[2]: value for key, value in self.queued[rev].items() if key.startswith("models.")}
        return {
            "epochs": self.epochs(rev),
            "budget": {"images": 1000 * self.epochs(rev)},
            "seconds": 60.0 * self.epochs(rev),
            "resolved": {"precision": "float32", "threads": 2},
            "hardware": {"cpu": "Some CPU"},
            "versions": {"torch": "2.0"},
            "started": "2026-11-25T12:00:00+00:00",
            "data_sha256": "d" * 64,
            "tags": {"git_commit": "0123456789", "git_dirty": "false", "params_sha256": rev},
            "params": {"seed": int(folder.name), "width": 8, "compute.threads": 2} | own,
        }


@pytest.fixture
def fake(monkeypatch, tmp_path) -> Dvc:
    fake = Dvc()
    (tmp_path / "params.yaml").write_text(paths.PARAMS.read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiments, "output", fake.output)
    monkeypatch.setattr(experiments, "_run", fake.run)
    monkeypatch.setattr(experiments, "run_queue", lambda jobs, again: None)
    return fake


def run(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["study", *arguments])
    study.main()


def queued(fake: Dvc, start: str) -> list[str]:
    return [name for name in fake.queued if name.startswith(f"study-{start}-")]


def test_every_study_leaves_table_figure_and_origin_and_none_is_trained_twice(fake, monkeypatch, tmp_path):
    run(monkeypatch, "--copy", "data/external")
    left = sorted(file.name for file in (tmp_path / "reports/studies").iterdir())
    assert left == sorted(f"{name}.{kind}" for name in study.STUDIES for kind in ("csv", "json", "png"))
    assert len(fake.queued) == 3 * 4 + 2 + 3 + 3 * 2
    [smallest] = queued(fake, "data-efficiency-vit-scratch-0_01")
    settings = {
        "budget.train_fraction": "0.01",
        "budget.epochs": "10",
        "budget.images": "null",
        "budget.minutes": "null",
    }
    settings |= {"budget.seeds": "1", "models.vit_scratch.epochs": "null", "target": "evaluate@vit_scratch"}
    assert fake.queued[smallest] == settings
    assert all("--copy-paths=data/external" in command for command in fake.commands if "--queue" in command)
    table = pd.read_csv("reports/studies/data_efficiency.csv")
    assert list(table["model"]) == [model for model in MODELS for _ in range(4)]
    assert table[["value", "val_top1"]].values[:4].tolist() == [[0.01, 0.1], [0.05, 0.05], [0.2, 0.02], [1.0, 0.01]]
    assert (set(table["data"]), set(table["weights"])) == ({"d" * 16}, {"random"})
    epochs = pd.read_csv("reports/studies/epochs.csv")
    assert epochs[["value", "epochs", "minutes"]].values.tolist() == [[n, n, n] for n in (1, 3, 10)]
    assert {fake.queued[name]["models.vit_scratch.patch_size"] for name in queued(fake, "epochs")} == {"8"}
    assert set(epochs["patch_size"]) == {8}
    assert "patch_size" not in pd.read_csv("reports/studies/patch_size.csv")
    before = len(fake.commands)
    run(monkeypatch)
    assert not any("--queue" in command for command in fake.commands[before:])


def test_at_equal_minutes_each_model_has_a_row_for_each_seed_with_what_it_made_of_them(fake, monkeypatch):
    run(monkeypatch, "equal_minutes", "--seeds", "2")
    settings = {"budget.epochs": "null", "budget.images": "null", "budget.minutes": "11", "budget.seeds": "2"}
    settings |= {"models.vit_transfer.epochs": "null", "target": "evaluate@vit_transfer"}
    assert [fake.queued[name] for name in queued(fake, "equal-minutes-vit-transfer-11")] == [settings]
    table = pd.read_csv("reports/studies/equal_minutes.csv")
    assert list(table["model"]) == [model for model in MODELS for _ in range(4)]
    columns = ["minutes", "seed", "val_top1", "images", "seconds"]
    rows = [[4, 0, 0.01, 1000, 60], [4, 1, 0.02, 1000, 60], [11, 0, 0.01, 1000, 60], [11, 1, 0.02, 1000, 60]]
    assert table[columns].values[:4].tolist() == rows


def test_a_study_says_what_it_was_measured_with(fake, monkeypatch):
    run(monkeypatch, "patch_size")
    origin = json.loads(Path("reports/studies/patch_size.json").read_text())
    assert (origin["commit"], origin["uncommitted_changes"], origin["data_sha256"]) == ("0123456789", False, "d" * 64)
    assert sorted(origin["params_sha256"]) == sorted(fake.queued), "of each training its own"
    assert (origin["hardware"], origin["versions"]) == ({"cpu": "Some CPU"}, {"torch": "2.0"})
    assert "patch_size" in origin["varied"]
    trained = {"data_sha256": "d" * 64, "params": {"width": 8, "patch_size": 2, "seed": 5}, "resolved": {}}
    assert studies.is_current(origin, "vit_scratch", trained)
    assert not studies.is_current(origin, "vit_scratch", trained | {"params": {"width": 9}})


def test_with_other_parameters_trainings_are_made_anew(fake, monkeypatch):
    run(monkeypatch, "patch_size")
    file = Path("params.yaml")
    file.write_text(file.read_text().replace("embed_dim: 192", "embed_dim: 96"))
    run(monkeypatch, "patch_size")
    assert len(fake.queued) == 4


def test_a_failed_experiment_is_named_nothing_is_written_and_it_is_queued_again(fake, monkeypatch, tmp_path):
    run(monkeypatch, "epochs")
    [first, *_] = queued(fake, "epochs")
    for file in Path("reports/studies").iterdir():
        file.unlink()
    fake.failing = {first}
    with pytest.raises(UserError, match=re.escape(f"{first} failed or has not ended")):
        run(monkeypatch, "epochs")
    assert list(Path("reports/studies").iterdir()) == []
    fake.failing = set()
    run(monkeypatch, "epochs")
    assert len(pd.read_csv("reports/studies/epochs.csv")) == 3


def test_an_unknown_study_is_told_which_there_are(fake, monkeypatch):
    with pytest.raises(UserError, match="there is no study 'depth': choose from data_efficiency, patch_size"):
        run(monkeypatch, "depth")
