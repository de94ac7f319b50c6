"""Checkpoints on disk: whole or not at all, for the same training or for none."""

import json

import pytest

from stages.training.checkpoints import INDEX, Checkpoints

CONFIGURATION = {"parameters": {"lr": 0.1, "depth": 4}, "code": "abc"}


@pytest.fixture
def checkpoints(tmp_path):
    return lambda configuration=CONFIGURATION, minutes=5.0: Checkpoints(
        tmp_path / "checkpoints", configuration, minutes
    )


def save(checkpoints, content="weights", **progress):
    checkpoints.save(lambda file: file.write_text(content), progress)


def test_a_new_training_finds_nothing_and_says_nothing(checkpoints, capsys):
    assert checkpoints().latest is None
    assert capsys.readouterr().out == ""


def test_the_same_training_finds_the_last_state_with_progress_and_notes(checkpoints):
    first = checkpoints()
    save(first, "early", step=20)
    first.notes["training_id"] = "t1"
    save(first, "late", step=40)
    again = checkpoints()
    assert again.latest.file.read_text() == "late"
    assert again.latest.progress == {"step": 40}
    assert again.notes == {"training_id": "t1"}
    assert {file.name for file in again.folder.iterdir()} == {INDEX, again.latest.file.name}


def test_the_time_before_the_crash_counts(checkpoints):
    first = checkpoints()
    first._started -= 100  # it has run for so many seconds
    save(first)
    assert checkpoints().seconds == pytest.approx(100, abs=5)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"parameters": {"lr": 0.2, "depth": 4}, "code": "abc"}, "parameters.lr"),
        ({"parameters": {"lr": 0.1, "depth": 4}, "code": "other"}, "code"),
        ({"parameters": {"lr": 0.1}, "code": "abc", "data": "d"}, "data, parameters.depth"),
    ],
)
def test_another_training_ignores_it_and_says_what_differs(checkpoints, capsys, changed, named):
    save(checkpoints())
    other = checkpoints(changed)
    assert other.latest is None
    assert other.notes == {}
    said = capsys.readouterr().out
    assert f"belongs to another training ({named} differ)" in said
    assert said.count("\n") == 1


def test_numbers_that_json_writes_alike_are_alike(checkpoints):
    configuration = {"size": (1, 2), "rates": {"b": 1e-3, "a": 1.0}}
    save(checkpoints(configuration))
    assert checkpoints({"rates": {"a": 1.0, "b": 0.001}, "size": [1, 2]}).latest


@pytest.mark.parametrize("damage", ["cut", "changed", "removed", "index cut", "index of another kind"])
def test_a_damaged_one_is_ignored_with_a_line(checkpoints, capsys, damage):
    save(checkpoints())
    folder = checkpoints().folder
    file, index = checkpoints().latest.file, folder / INDEX
    if damage == "cut":
        file.write_text("wei")
    elif damage == "changed":
        file.write_text("WEIGHTS")
    elif damage == "removed":
        file.unlink()
    elif damage == "index cut":
        index.write_text(index.read_text()[:-20])
    else:
        index.write_text(json.dumps(["not", "an", "index"]))
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


def test_cleared_it_leaves_nothing(checkpoints):
    running = checkpoints()
    save(running)
    running.clear()
    assert not running.folder.exists()
    running.clear()
