"""What is read from DVC's own words about a sweep.

exp_show.json is what `dvc exp show --json` (3.67) printed, shortened: a sweep `tiny` of two learning rates with two
seeds each, an experiment of it that failed, and one of another name.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from stages.tools.experiments import Queue, parse, render, settings, tried

SHOWN = json.loads((Path(__file__).parent / "exp_show.json").read_text())
RUNNING = """\
Task     Name     Created    Status
998e0f6  tiny-2   08:07 PM   Running
262d94e  tiny-11  08:07 PM   Queued
dd3e129  other    08:07 PM   Queued
b9e4a6e  tiny-1   Nov 22, 2026  Failed
be2bc3d  tiny     08:02 PM   Success
112679a  tiny-lr-2  08:02 PM   Running
112679a  tiny-lr-2  08:02 PM   Success
262d94f  tinier-1   08:07 PM   Running

Worker status: 1 active, 2 idle
"""


def test_the_queue_counts_the_sweeps_own_tasks_and_all_workers():
    queue = Queue.parse(RUNNING, "tiny")
    assert queue.tasks == {"Running": 1, "Queued": 1, "Failed": 1, "Success": 2}
    assert queue.workers == 3
    assert not queue.is_done
    assert str(queue) == "3 of 5 experiments done (1 failed), 1 running, 1 waiting"


def test_a_sweep_is_done_when_none_of_its_tasks_runs_or_waits():
    assert Queue.parse(RUNNING.replace("Running", "Success").replace("Queued", "Failed"), "tiny").is_done
    empty = Queue.parse("No experiment tasks in the queue.\n\nWorker status: 0 active, 0 idle\n", "tiny")
    assert empty.is_done
    assert empty.workers == 0


def test_words_that_are_no_status_are_refused():
    with pytest.raises(ValueError, match="no worker status"):
        Queue.parse("ERROR: you are not inside of a DVC repository", "tiny")


def test_experiments_of_the_sweep_alone_are_read_in_order():
    found = parse(SHOWN, "tiny", "vit_scratch")
    assert [experiment.name for experiment in found] == ["tiny-1", "tiny-2", "tiny-3", "tiny-4", "tiny-5"]
    assert [experiment.val_top1 for experiment in found] == [0.0, 0.0, 0.01, 0.0, None]
    assert len(found[0].rev) == 40
    assert found[0].params["data.demo.train_per_class"] == 4
    assert found[2].params["models.vit_scratch.adamw_lr"] == 0.003
    assert parse(SHOWN, "tin", "vit_scratch") == []
    assert parse([], "tiny", "vit_scratch") == []


def test_what_stood_in_the_workspace_is_no_result_of_a_failed_experiment():
    [failed] = [experiment for experiment in parse(SHOWN, "tiny", "vit_scratch") if experiment.state == "failed"]
    assert failed.name == "tiny-5"
    assert failed.val_top1 is None
    # DVC shows measures beside it all the same.
    entry = next(e for baseline in SHOWN for e in baseline["experiments"] or () if e["name"] == "tiny-5")
    assert entry["revs"][0]["data"]["metrics"]


def test_an_experiment_whose_task_was_removed_from_the_queue_still_counts():
    shown = json.loads(json.dumps(SHOWN))
    for baseline in shown:
        for entry in baseline["experiments"] or ():
            entry["executor"] = None
    assert [e.state for e in parse(shown, "tiny", "vit_scratch")] == [*["success"] * 4, "failed"]


def test_what_differs_was_tried_and_seeds_repeat_it():
    found = parse(SHOWN, "tiny", "vit_scratch")
    rates, both = "models.vit_scratch.adamw_lr", ["models.vit_scratch.embed_dim", "models.vit_scratch.adamw_lr"]
    assert tried(found) == both  # the failed one had another width
    assert tried(found[:4]) == [rates]
    assert tried(found[:2]) == ["seed"]
    assert tried(found[:1]) == []
    best, other = settings(found, both)
    assert best.values == (24, 0.003)
    assert best.val_top1s == [0.01, 0.0]
    assert best.val_top1 == 0.005
    assert other.values == (24, 0.001)


def test_true_is_another_value_than_one():
    one, *_ = parse(SHOWN, "tiny", "vit_scratch")
    two = replace(one, name="tiny-2", params={**one.params, "seed": True})
    three = replace(one, name="tiny-3", params={**one.params, "seed": 1})
    assert tried([two, three]) == ["seed"]
    assert len(settings([two, three], ["seed"])) == 2


def table_rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_ranks_by_validation_and_names_what_failed():
    found = parse(SHOWN, "tiny", "vit_scratch")
    minutes = {"tiny-1": 1.0, "tiny-2": 2.0, "tiny-3": None}
    text = render(found, tried(found), minutes, sweep="tiny", model="vit_scratch", picture="sweep.png")
    header, _, best, other = table_rows(text)
    assert header == ["embed_dim", "adamw_lr", "val top-1", "minutes", "experiment"]
    assert best == ["24", "0.003", "**0.50%** (0.00% to 1.00%, n = 2), the best", "?", "tiny-3, tiny-4"]
    assert other == ["24", "0.001", "0.00% (0.00% to 0.00%, n = 2)", "1.5", "tiny-1, tiny-2"]
    assert "**Best: embed_dim = 24, adamw_lr = 0.003**" in text
    assert "`dvc exp apply tiny-3`" in text
    assert "Failed: tiny-5 (embed_dim = 25, adamw_lr = 0.001). `dvc queue logs NAME` says why." in text


def test_the_test_split_neither_shows_nor_chooses():
    def text(shown) -> str:
        found = parse(shown, "tiny", "vit_scratch")
        return render(found, tried(found), {}, sweep="tiny", model="vit_scratch", picture="sweep.png")

    upside_down = json.loads(json.dumps(SHOWN))
    for baseline in upside_down:
        for entry in baseline["experiments"] or ():
            measures = entry["revs"][0]["data"]["metrics"]["reports/metrics/vit_scratch.json"]["data"]
            measures["test"] = {name: 1 - value for name, value in measures["test"].items()}
    assert text(upside_down) == text(SHOWN)
