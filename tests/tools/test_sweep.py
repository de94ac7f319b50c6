"""A sweep, from what `dvc exp show --json` (3.67) printed: exp_show.json, shortened.

It holds `tiny`, two learning rates with two seeds each and one experiment that failed, and another experiment.
"""

import json
import re
import sys
from pathlib import Path

import pandas as pd
import pytest

from stages.common.errors import UserError
from stages.report import charts
from stages.tools import experiments, sweep

SHOWN = (Path(__file__).parent / "exp_show.json").read_text()
MAKEFILE = Path(__file__).parents[2] / "Makefile"
COMMIT = "46b07de70ceff41acef1754172c5f74dcdd11a53"
RUN = {
    "seconds": 90.0,
    "tags": {"git_commit": COMMIT, "git_dirty": "true", "params_sha256": "p" * 64},
    "data_sha256": "d" * 64,
    "hardware": {"cpu": "Some CPU"},
    "versions": {"torch": "2.0"},
    "started": "2026-11-23T20:32:35+00:00",
}


class Commands:
    """Answers for DVC and git. shown: what `dvc exp show` prints; queue: how often it was run."""

    def __init__(self) -> None:
        self.shown, self.queue = SHOWN, 0

    def output(self, *command: str) -> str:
        return COMMIT if command[0] == "git" else self.shown

    def run_queue(self, jobs: int, again: str) -> None:
        self.queue += 1


@pytest.fixture
def commands(monkeypatch, tmp_path) -> Commands:
    fake = Commands()
    (tmp_path / "params.yaml").write_text(Path("params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiments, "output", fake.output)
    monkeypatch.setattr(experiments, "run_queue", fake.run_queue)
    monkeypatch.setattr(experiments, "_run", lambda rev, folder: RUN if rev.startswith("3") else {})
    return fake


def run(monkeypatch, name: str = "tiny") -> None:
    monkeypatch.setattr(sys, "argv", ["sweep", "vit_scratch", name])
    sweep.main()


def changed(change) -> str:
    shown = json.loads(SHOWN)
    for baseline in shown:
        baseline["experiments"] = [entry for entry in baseline["experiments"] or () if change(entry) is not False]
    return json.dumps(shown)


def test_experiments_of_the_sweep_alone_are_read_in_order(commands):
    found = experiments.read("tiny", COMMIT)
    assert [(one["name"], one["state"]) for one in found] == [
        *((f"tiny-{number}", "success") for number in range(1, 5)),
        ("tiny-5", "failed"),
    ]
    assert [one["metrics"]["vit_scratch"]["val"]["top1"] for one in found[:4]] == [0.0, 0.0, 0.01, 0.0]
    assert found[4]["metrics"] == {}, "what stood in the workspace is no result of a failed experiment"
    assert found[2]["params"]["models.vit_scratch.adamw_lr"] == "0.003"
    assert found[2]["params"]["models.vit_scratch.flip"] == "true", "not 1"
    assert found[2]["params"]["data.source"] == "demo"
    assert experiments.read("tin", COMMIT) == []
    commands.shown = changed(lambda entry: entry.update(executor=None))
    assert experiments.read("tiny", COMMIT) == found, "the same without the tasks, once they left the queue"


def ranked(found):
    trained = {one["name"]: experiments.trainings(one, "vit_scratch") for one in found if one["state"] == "success"}
    return sweep.rank(found, trained, "vit_scratch")


def test_all_seeds_of_an_experiment_count_alike(commands):
    first, second = experiments.read("tiny", COMMIT)[1:3]
    first["metrics"]["vit_scratch"]["seeds"]["val"]["top1"] = {"1": 0.3, "2": 0.2}
    first["metrics"]["vit_scratch"]["seeds"]["test"]["top1"] = {"1": 0.5, "2": 0.6}
    assert [run["test_top1"] for run in experiments.trainings(first, "vit_scratch")] == [0.5, 0.6]
    _, settings = ranked([first, second])
    assert settings[["val_top1", "low", "high", "n"]].values.tolist() == [[0.25, 0.2, 0.3, 2], [0.01, 0.01, 0.01, 1]]
    assert list(settings["experiments"][0]) == ["tiny-2"]


def test_settings_are_ranked_by_validation_and_seeds_repeat_them(commands):
    found = experiments.read("tiny", COMMIT)
    tried, settings = ranked(found)
    assert tried == ["embed_dim", "adamw_lr"]  # the failed one had another width
    assert settings["adamw_lr"].tolist() == ["0.003", "0.001"]
    assert settings[["val_top1", "low", "high", "n"]].values.tolist() == [[0.005, 0.0, 0.01, 2], [0, 0, 0, 2]]
    assert [list(names) for names in settings["experiments"]] == [["tiny-3", "tiny-4"], ["tiny-1", "tiny-2"]]
    assert settings["minutes"][0] == 1.5, "of the one that is known"
    assert ranked(found[:4])[0] == ["adamw_lr"]
    assert ranked(found[:2])[0] == ["seed"]


def test_table_and_figure_of_what_ended_well_and_the_failures_in_one_line(commands, monkeypatch):
    with pytest.raises(UserError, match=re.escape("1 of 5 experiments failed: tiny-5; `dvc queue logs NAME` says why")):
        run(monkeypatch)
    text = sweep.TABLE.read_text()
    assert "**Best: embed_dim = 24, adamw_lr = 0.003**, 0.50% top-1 on validation. `dvc exp apply tiny-3`" in text
    assert "| 24 | 0.003 | 0.50% | 0.00% | 1.00% | 2 | 1.5 | tiny-3, tiny-4 |" in text.splitlines()
    assert sweep.FIGURE.read_bytes().startswith(b"\x89PNG")
    origin = json.loads(sweep.ORIGIN.read_text())
    assert (origin["commit"], origin["uncommitted_changes"]) == (COMMIT, True)
    assert commands.queue == 1


def test_a_model_that_params_yaml_lacks_is_found_before_anything_is_queued(commands, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sweep", "vit_scrach"])
    with pytest.raises(UserError, match=r"^params.yaml has no model 'vit_scrach': its models are vit_scratch, [^\n]+$"):
        sweep.main()
    monkeypatch.setattr(sys, "argv", ["sweep", "vit_scratch"])
    sweep.main()
    assert commands.queue == 0
    recipe = re.search(r"^sweep:.*\n((?:\t.*\n)+)", MAKEFILE.read_text(), re.MULTILINE)[1].splitlines()
    assert recipe[0] == "\t@python -m stages.tools.sweep $(MODEL)"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda entry: False, f"no experiment tiny under commit {COMMIT[:10]}"),
        (lambda entry: entry["name"] == "tiny-1", "all experiments of vit_scratch have the same parameters"),
        (
            lambda entry: entry["executor"].update(state="running") if entry["name"] == "tiny-2" else None,
            "1 of 5 experiments failed: tiny-5",
        ),
        (
            lambda entry: entry["name"] != "tiny-5" and entry["executor"].update(state="queued"),
            "4 of 4 experiments queued: tiny-1, tiny-2, tiny-3, tiny-4; python -m stages.tools.sweep vit_scratch tiny",
        ),
    ],
)
def test_what_is_missing_is_one_line(commands, monkeypatch, change, line):
    commands.shown = changed(change)
    with pytest.raises(UserError, match=f"^{re.escape(line)}[^\n]*$"):
        run(monkeypatch)


def spec(**values):
    settings = pd.DataFrame({**values, "val_top1": [0.1, 0.3, 0.2, 0.15][: len(next(iter(values.values())))]})
    return charts.sweep(settings, list(values)).to_dict()


def test_two_parameters_are_a_heat_map_and_others_a_panel_each_with_numbers_by_size():
    cells, texts = spec(**{"lr": ["1e-2", "0.001"], "data.seed": ["1", "0"]})["layer"]
    assert (cells["mark"]["type"], texts["mark"]["type"]) == ("rect", "text")
    assert cells["encoding"]["x"]["sort"] == ["0.001", "1e-2"]
    assert (cells["encoding"]["y"]["field"], cells["encoding"]["y"]["title"]) == ("data seed", "data.seed")
    one, two, three = spec(a=["2", "10", "1"], b=["x", "null", "x"], c=["1", "2", "3"])["hconcat"]
    assert one["layer"][0]["encoding"]["x"]["sort"] == ["1", "2", "10"]
    assert two["layer"][0]["encoding"]["x"]["sort"] == ["x", "null"]
    assert three["layer"][1]["encoding"]["y"]["aggregate"] == "max"


def test_a_command_that_fails_is_named_with_what_it_said():
    with pytest.raises(UserError, match=r"`git no-such-command` failed: .*no-such-command"):
        experiments.output("git", "no-such-command")


def test_a_training_that_left_the_cache_has_no_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = {"rev": "HEAD", "metrics": {"net": {"seeds": {split: {"top1": {"0": 0.1}} for split in ("val", "test")}}}}
    assert experiments.trainings(found, "net") == [{"val_top1": 0.1, "test_top1": 0.1}]
