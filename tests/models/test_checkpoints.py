"""Checkpoints on disk: whole or not at all, for the same training or for none."""

import json
import time

import pytest

from stages.models import classifier_class
from stages.training import checkpoints as module
from stages.training.checkpoints import INDEX, Checkpoints, code_sha256

CONFIGURATION = {"parameters": {"lr": 1e-3, "size": (1, 2)}, "code": "abc"}


@pytest.fixture
def checkpoints(tmp_path):
    return lambda configuration=CONFIGURATION, minutes=5.0: Checkpoints(tmp_path / "c", configuration, minutes)


def save(checkpoints, content="weights", **progress):
    checkpoints.save(lambda file: file.write_text(content), progress)


def test_the_same_training_finds_the_last_state_with_progress_and_notes(checkpoints, capsys):
    first = checkpoints()
    assert first.latest is None
    save(first, "early", step=20)
    first.notes["training_id"] = "t1"
    save(first, "late", step=40)
    again = checkpoints({"code": "abc", "parameters": {"size": [1, 2], "lr": 0.001}})
    assert again.latest.file.read_text() == "late"
    assert again.latest.progress == {"step": 40}
    assert again.notes == {"training_id": "t1"}
    assert {file.name for file in again.folder.iterdir()} == {INDEX, again.latest.file.name}
    again.clear()
    assert not again.folder.exists()
    assert capsys.readouterr().out == ""


def test_the_time_before_the_crash_counts(checkpoints):
    first = checkpoints()
    first._started -= 100  # it has run for so many seconds
    save(first)
    assert checkpoints().seconds == pytest.approx(100, abs=5)


def test_the_clock_stands_still_while_it_is_paused(checkpoints):
    running = checkpoints()
    before = running.seconds
    with pytest.raises(KeyboardInterrupt), running.paused():
        time.sleep(0.5)
        raise KeyboardInterrupt
    assert running.seconds - before < 0.4


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"parameters": {"lr": 0.2, "size": (1, 2)}, "code": "abc"}, "parameters.lr"),
        ({"parameters": {"lr": 1e-3, "size": (1, 2)}, "code": "other"}, "code"),
        ({"parameters": {"lr": 1e-3}, "code": "abc", "data": "d"}, "data, parameters.size"),
    ],
)
def test_another_training_ignores_it_and_tells_what_differs(checkpoints, capsys, changed, named):
    first = checkpoints()
    first.notes["training_id"] = "t1"
    save(first)
    other = checkpoints(changed)
    assert (other.latest, other.notes) == (None, {})
    printed = capsys.readouterr().out
    assert f"belongs to another training ({named} differ)" in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize("damage", ["state changed", "state removed", "index cut", "index of another kind"])
def test_a_damaged_one_is_ignored_with_a_line(checkpoints, capsys, damage):
    save(checkpoints())
    file, index = checkpoints().latest.file, checkpoints().folder / INDEX
    if damage == "state changed":
        file.write_text("WEIGHTS")
    elif damage == "state removed":
        file.unlink()
    else:
        index.write_text(index.read_text()[:-20] if damage == "index cut" else json.dumps(["not", "an", "index"]))
    assert checkpoints().latest is None
    assert "is damaged: it is ignored" in capsys.readouterr().out


def test_a_crash_while_writing_leaves_the_former_one(checkpoints):
    running = checkpoints()
    save(running, "former", step=20)

    def crash(file):
        file.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        running.save(crash, {"step": 40})
    assert checkpoints().latest.file.read_text() == "former"
    save(checkpoints(), "next", step=60)
    assert len(list(running.folder.iterdir())) == 2  # what the crash left is gone


def test_it_is_due_after_so_many_minutes(checkpoints):
    running = checkpoints(minutes=2)
    assert not running.due()
    running._last_saved -= 121
    assert running.due()
    save(running)
    assert not running.due()


def test_the_code_of_a_training_is_that_of_its_model_and_its_engine(monkeypatch, tmp_path):
    read, kind = set(), classifier_class("vit_scratch")
    original = module.Path.read_bytes
    monkeypatch.setattr(module.Path, "read_bytes", lambda file: read.add(file) or original(file))
    digest = code_sha256(kind)
    assert (len(digest), digest) == (64, code_sha256(kind))
    names = {file.relative_to(module.STAGES).as_posix() for file in read}
    assert {"models/base.py", "models/vit_scratch/vit.py", "training/batches.py", "common/settings.py"} <= names
    assert {"models/torch_engine/muon.py", "training/torch_engine/loop.py"} <= names
    assert not [name for name in names if "keras" in name or "transfer" in name or "export" in name]
