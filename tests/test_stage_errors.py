"""How a stage ends, and the files it leaves."""

import errno
from pathlib import Path

import pytest

from stages.common.errors import UserError, one_line_errors
from stages.common.files import read_json, replacing, write_json


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("this is wrong: do that"), "train: this is wrong: do that"),
        (OSError(errno.ENOSPC, "", "data/x"), "train: the disk is full (data/x): free some space and run again"),
        (OSError(errno.EDQUOT, "Quota"), "train: the disk is full (Quota): free some space and run again"),
        (KeyboardInterrupt(), 130),  # as shells have it
    ],
)
def test_what_a_user_can_correct_is_one_line_and_no_trace(error, code):
    with pytest.raises(SystemExit) as stopped, one_line_errors("train"):
        raise error
    assert stopped.value.code == code


@pytest.mark.parametrize("bug", [ValueError("oops"), OSError(errno.EACCES, "no")])
def test_a_bug_keeps_its_trace(bug):
    with pytest.raises(type(bug)), one_line_errors("train"):
        raise bug


def test_an_output_is_complete_or_absent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = Path("reports/metrics/a.json")
    write_json(file, {"top1": 0.5})
    with pytest.raises(InterruptedError), replacing(file) as unfinished:
        unfinished.write_text("{")
        raise InterruptedError
    assert read_json(file, "") == {"top1": 0.5}
    assert [path.name for path in Path("reports").rglob("*")] == ["metrics", "a.json"]


@pytest.mark.parametrize("content", [None, "", "{", "[1]"])
def test_an_output_that_cannot_be_read_is_named_with_its_remedy(tmp_path, content):
    file = tmp_path / "a.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=r"a\.json.*: run `dvc repro`"):
        read_json(file, "run `dvc repro`")
