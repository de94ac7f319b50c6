"""What a stage tells its user when it stops, and the files it leaves."""

import errno
import json
from pathlib import Path

import pytest

from stages.common.errors import UserError, one_line_errors
from stages.common.files import read_json, write_json


@pytest.mark.parametrize("kind", [UserError, UserError])
def test_a_mistake_of_the_user_is_one_line_without_a_trace(kind):
    with pytest.raises(SystemExit) as stopped, one_line_errors("train"):
        raise kind("this is wrong: do that")
    assert stopped.value.code == "train: this is wrong: do that"


def test_a_full_disk_is_one_line():
    with pytest.raises(SystemExit) as stopped, one_line_errors("predict"):
        raise OSError(errno.ENOSPC, "No space left on device", "data/scratch/x")
    assert stopped.value.code == "predict: the disk is full (data/scratch/x): free some space, run again"


def test_an_interruption_ends_with_the_status_that_shells_give_it(capsys):
    with pytest.raises(SystemExit) as stopped, one_line_errors("train"):
        raise KeyboardInterrupt
    assert stopped.value.code == 130
    assert capsys.readouterr().err.strip() == "train: interrupted; run the same command again"


@pytest.mark.parametrize("bug", [ValueError("oops"), OSError(errno.EACCES, "no")])
def test_a_bug_keeps_its_trace(bug):
    with pytest.raises(type(bug)), one_line_errors("train"):
        raise bug


def test_an_output_is_whole_or_absent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = Path("reports/metrics/a.json")
    write_json(file, {"top1": 0.5})
    assert read_json(file, "") == {"top1": 0.5}
    with pytest.raises(TypeError):
        write_json(file, {"top1": object()})
    assert json.loads(file.read_text()) == {"top1": 0.5}
    assert [path.name for path in Path("reports").rglob("*")] == ["metrics", "a.json"]


@pytest.mark.parametrize("content", [None, "", "{", "[1]"])
def test_an_output_that_cannot_be_read_is_named_with_its_remedy(tmp_path, content):
    file = tmp_path / "a.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=r"a\.json.*: run `dvc repro`"):
        read_json(file, "run `dvc repro`")
