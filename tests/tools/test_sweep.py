"""The door of a sweep: it waits while somebody works, draws what there is, and says in one line what there is not."""

import json
from pathlib import Path

import pytest

from stages.common.errors import UserError
from stages.tools import sweep
from stages.tools.experiments import parse

SHOWN = json.loads((Path(__file__).parent / "exp_show.json").read_text())
COMMIT = "46b07de70ceff41acef1754172c5f74dcdd11a53"


def status(*tasks: str, workers: int = 1) -> str:
    rows = [f"{number:07x}  tiny-{number}  08:07 PM   {task}" for number, task in enumerate(tasks, 1)]
    return "\n".join(["Task     Name     Created    Status", *rows, "", f"Worker status: {workers} active, 0 idle"])


@pytest.fixture
def queue(monkeypatch):
    """Let `dvc queue status` give these answers, one after the other; the clock goes on by what is slept."""

    def answers(*texts: str) -> list[float]:
        left, now = list(texts), [0.0]
        monkeypatch.setattr(sweep, "dvc", lambda *arguments: left.pop(0) if len(left) > 1 else left[0])
        monkeypatch.setattr(sweep.time, "monotonic", lambda: now[0])
        monkeypatch.setattr(sweep.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
        return now

    return answers


@pytest.fixture
def found(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "_minutes", lambda experiment, model: 1.0)
    return parse(SHOWN, "tiny", "vit_scratch")


def test_waiting_ends_with_the_last_experiment_and_tells_each_change_once(queue, capsys):
    queue(
        status("Queued", "Queued"),
        status("Running", "Queued"),
        status("Running", "Queued"),
        status("Failed", "Running"),
        status("Failed", "Success"),
    )
    sweep.wait("tiny", "again")
    assert capsys.readouterr().out.splitlines() == [
        "tiny: 0 of 2 experiments done, 0 running, 2 waiting",
        "tiny: 0 of 2 experiments done, 1 running, 1 waiting",
        "tiny: 1 of 2 experiments done (1 failed), 1 running, 0 waiting",
    ]


def test_a_task_that_dvc_misses_for_a_moment_is_waited_for(queue, capsys):
    # Seen with two workers: a task is in neither list while it goes from waiting to running.
    queue(status("Success"), status("Success", "Running"), status("Success", "Success"))
    sweep.wait("tiny", "again")
    assert "1 running" in capsys.readouterr().out


def test_a_queue_without_a_worker_is_not_waited_for(queue):
    now = queue(status("Running", "Queued"), status("Queued", "Queued", workers=0))
    with pytest.raises(UserError, match="2 waiting, but no worker: `dvc queue start`, then `again`"):
        sweep.wait("tiny", "again")
    assert sweep.PATIENCE < now[0] < sweep.PATIENCE + 60


def test_a_worker_may_take_a_minute_to_start(queue):
    queue(*[status("Queued", workers=0)] * 10, status("Running"), status("Success"))
    sweep.wait("tiny", "again")


def test_table_and_picture_of_what_ended_well(found, capsys):
    sweep.report(found[:4], "tiny", "vit_scratch", COMMIT)
    assert (sweep.PICTURE).read_bytes().startswith(b"\x89PNG")
    assert "| 0.003 | **0.50%**" in sweep.TABLE.read_text()
    assert f"]({sweep.PICTURE.name})" in sweep.TABLE.read_text()
    assert "Best: adamw_lr = 0.003, 0.50%" in capsys.readouterr().out


def test_some_failed_the_others_are_drawn_and_the_failures_named(found):
    with pytest.raises(UserError, match=r"1 of 5 experiments failed: tiny-5; `dvc queue logs NAME` says why"):
        sweep.report(found, "tiny", "vit_scratch", COMMIT)
    assert sweep.PICTURE.exists()
    assert "Failed: tiny-5" in sweep.TABLE.read_text()


@pytest.mark.parametrize(
    ("part", "line"),
    [
        (slice(4, 5), "1 of 1 experiments failed: tiny-5; `dvc queue logs NAME` says why"),
        (slice(0, 0), "no experiment tiny under commit 46b07de70c: `dvc exp list --all` names those there are"),
        (slice(0, 1), "all experiments of tiny have the same parameters: give SWEEP two values of one at least"),
    ],
)
def test_nothing_to_draw_is_one_line(found, part, line):
    with pytest.raises(UserError) as refused:
        sweep.report(found[part], "tiny", "vit_scratch", COMMIT)
    assert str(refused.value).startswith(line)
    assert "\n" not in str(refused.value)
    assert not sweep.FOLDER.exists()


def test_a_command_that_fails_is_named_with_what_it_said():
    with pytest.raises(UserError, match=r"`git no-such-command` failed: .*no-such-command"):
        sweep.command_output("git", "no-such-command")
