"""The order of the measurements, how long they are told to take, and the files that are left."""

import json
import sys
from pathlib import Path

import pytest

from stages.common.errors import UserError
from stages.tools.bench import __main__ as bench
from stages.tools.bench import speed
from stages.tools.bench.job import Job
from stages.tools.bench.speed import LEAST, WARM_UP, Stopwatch


class FakeJob:
    """Answers at once, as if every step had taken `pace` seconds."""

    def __init__(self, name, calls, pace):
        self.name, self.calls, self.pace = name, calls, pace

    def run(self, function, *arguments):
        self.calls.append((self.name, function, arguments))
        return {"step_seconds": self.pace[function], "images_per_second": 1.0}


def rounds_of(pace, count=2, seconds=6.0):
    calls = []
    models = bench._rounds({name: FakeJob(name, calls, pace) for name in ("a", "b")}, count, seconds)
    return models, calls


def test_the_two_ways_take_turns_and_the_models_too():
    models, calls = rounds_of({"speed.notebook": 1.0, "speed.ours": 1.0})
    assert [(name, function) for name, function, _ in calls] == [
        (name, f"speed.{way}") for _ in range(2) for name in "ab" for way in ("notebook", "ours")
    ]
    assert all(len(models[name][way]) == 2 for name in "ab" for way in ("notebook", "ours"))


def test_fit_goes_on_for_as_many_steps_as_fill_the_time():
    _, calls = rounds_of({"speed.notebook": 3.0, "speed.ours": 1.5})
    # At first at the pace of the notebook way, then at its own.
    assert [arguments for name, function, arguments in calls if (name, function) == ("a", "speed.ours")] == [
        (2, 6.0),
        (4, 6.0),
    ]


@pytest.mark.parametrize(("pace", "steps"), [(100.0, LEAST), (1e-6, bench.MAX_STEPS)])
def test_the_number_of_steps_is_bounded(pace, steps):
    _, calls = rounds_of({"speed.notebook": pace, "speed.ours": pace}, count=1)
    assert calls[1][2][0] == steps


def test_no_round_begins_that_would_end_too_late(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(bench.time, "monotonic", lambda: now[0])

    class Slow(FakeJob):
        def run(self, function, *arguments):
            now[0] += bench.LIMIT / 5
            return super().run(function, *arguments)

    job = Slow("a", [], {"speed.notebook": 1.0, "speed.ours": 1.0})
    models = bench._rounds({"a": job}, None, 1.0)  # of two fifths of the limit each
    assert len(models["a"]["ours"]) == 2
    assert "no round 3" in capsys.readouterr().out


def test_a_stopwatch_leaves_the_warm_up_out(monkeypatch):
    now, waits = [0.0], []
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    watch = Stopwatch(2, 10.0, lambda: waits.append(now[0]))
    answers = []
    for took in [100.0] * WARM_UP + [4.0, 4.0, 4.0]:
        now[0] += took
        answers.append(watch())
    assert answers == [False] * (WARM_UP + 2) + [True]
    assert watch.steps == 3
    assert watch.step_seconds == pytest.approx(4.0)
    assert waits == [100.0 * WARM_UP, 100.0 * WARM_UP + 12]  # the device has to be done at both ends


RESULT = {
    "device": "cpu",
    "threads": 1,
    "num_parameters": 10,
    "precision": "float32",
    "steps": 2,
    "step_seconds": 1.0,
    "images_per_second": 4.0,
    "peak_memory_mb": 100.0,
    "model_step_seconds": 0.9,
    "checkpoint_seconds": 0.1,
    "forward_images_per_second": 9.0,
}


def test_as_many_rounds_as_asked_for_however_long_they_take(monkeypatch, tmp_path, tiny_params):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench", "--rounds", "4"])
    monkeypatch.setattr(bench, "LIMIT", 0.0)
    monkeypatch.setattr(bench.params, "read", lambda: tiny_params)
    monkeypatch.setattr(Job, "run", lambda *_: RESULT)
    bench.main()
    found = json.loads(Path("reports/benchmark.json").read_text())["models"]
    assert {len(rounds) for each in found.values() for rounds in each.values()} == {4}


@pytest.mark.parametrize("rounds", ["0", "-1", "two", "1.5"])
def test_rounds_that_are_no_number_of_times_are_refused(monkeypatch, capsys, rounds):
    monkeypatch.setattr(sys, "argv", ["bench", f"--rounds={rounds}"])
    with pytest.raises(SystemExit):
        bench.main()
    assert f"{rounds}: give a whole number, 1 or more" in capsys.readouterr().err


def test_two_reports_are_all_that_is_left(monkeypatch, tmp_path, tiny_params):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench"])
    monkeypatch.setattr(bench.params, "read", lambda: tiny_params)

    def leave_something(job, *arguments):
        (Path(job.scratch) / "mlflow.db").touch()
        return RESULT

    monkeypatch.setattr(Job, "run", leave_something)
    bench.main()
    assert sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()) == [
        "reports/benchmark.json",
        "reports/benchmark.md",
    ]
    assert list(Path("data/scratch").iterdir()) == []
    found = json.loads(Path("reports/benchmark.json").read_text())
    assert {name: {way: len(rounds) for way, rounds in each.items()} for name, each in found["models"].items()} == {
        name: {"notebook": 3, "ours": 3} for name in tiny_params.models
    }
    assert "random pictures" in Path("reports/benchmark.md").read_text()


def test_the_epoch_needs_prepared_pictures_and_a_scratch_vit(monkeypatch, tmp_path, tiny_params, tiny_data):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="run `dvc repro prepare`"):
        bench.measure(tiny_params, with_epochs=True)
    monkeypatch.setattr(bench.paths, "PREPARED", tiny_data.folder)
    others = {name: section for name, section in tiny_params.models.items() if name != "vit_scratch"}
    with pytest.raises(UserError, match="params.yaml has none"):
        bench.measure(tiny_params.model_copy(update={"models": others}), with_epochs=True)
