"""`make bench`: baseline and ours really trained for a few steps, real processes, and figures from given numbers."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from stages.common import paths
from stages.common.errors import UserError
from stages.tools.bench import __main__ as bench
from stages.tools.bench import forward, report, serving, training
from stages.tools.bench.rounds import in_fresh_process, interleave
from stages.tools.bench.training import WARM_UP, Stopwatch
from stages.training.batches import LabeledImages
from tests import linear_onnx

REPORTS = Path(__file__).parents[2] / "reports"


def test_measurements_take_turns_each_in_a_process_of_its_own():
    found = interleave([("a", "x", process), ("a", "y", process), ("b", "x", process), ("a", "x", process)], 2)
    assert [{way: len(each) for way, each in one.items()} for one in found["a"]] == [{"x": 2, "y": 1}] * 2
    assert [list(one) for one in found["b"]] == [["x"], ["x"]]
    taken = [one for rounds in found.values() for ways in rounds for each in ways.values() for one in each]
    assert len({os.getpid(), *(one["process"] for one in taken)}) == 9


def process() -> dict[str, int]:
    print("noise")
    return {"process": os.getpid()}


def test_errors_of_a_measurement_are_raised_and_a_process_that_dies_is_told_of(capfd):
    with pytest.raises(UserError, match=r"^cannot read nothing\.json"):
        in_fresh_process(bench.read_json, Path("nothing.json"), "do this")
    with pytest.raises(UserError, match=r"^posix\._exit was killed: where memory does not suffice, lower batch_size"):
        in_fresh_process(os._exit, 9)
    in_fresh_process(process)
    assert "noise" not in capfd.readouterr().out


def test_a_stopwatch_leaves_the_warm_up_out(monkeypatch):
    now, waits = [0.0], []
    monkeypatch.setattr(training.time, "perf_counter", lambda: now[0])
    watch = Stopwatch(3, lambda: waits.append(now[0]))
    ended = []
    for took in [100.0] * WARM_UP + [4.0, 4.0, 4.0]:
        now[0] += took
        ended.append(watch())
    assert ended == [False] * (WARM_UP + 2) + [True]
    assert watch.times == waits == [100.0 * WARM_UP, 100.0 * WARM_UP + 12]  # the device has to be done at both ends


def grey(labels: np.ndarray) -> LabeledImages:
    images = np.broadcast_to(labels[:, None, None, None] * 40, (len(labels), 32, 32, 3))
    return LabeledImages(images.astype(np.uint8), labels)


def test_the_baselines_see_images_in_the_networks_size_cropped_shuffled_and_with_their_labels(monkeypatch):
    import torch

    from stages.models import prepare_frameworks

    prepare_frameworks()
    from stages.tools.bench import keras_baseline, torch_baseline

    monkeypatch.setattr(torch_baseline, "WORKERS", 0)
    torch.manual_seed(0)
    [(images, labels)] = torch_baseline.loader(grey(np.arange(1, 7)), 48, [0.5] * 3, [0.25] * 3, batch_size=6)
    assert (images.shape, images.dtype) == ((6, 3, 48, 48), torch.float32)
    assert sorted(labels.tolist()) == list(range(1, 7)) != labels.tolist()
    assert images.min() == pytest.approx(-2), "a crop shows the black border"
    assert torch.allclose(images.flatten(1).median(1).values, (labels * 40 / 255 - 0.5) / 0.25, atol=1e-5)
    [(images, labels)] = list(keras_baseline.pixels(grey(np.arange(6)), 48, batch_size=6))
    assert (images.shape, images.dtype) == ((6, 48, 48, 3), "float32")
    assert np.allclose(images, labels.numpy()[:, None, None, None] * 40)


@pytest.mark.parametrize("name", ["vit_scratch", "mobilenet_transfer"])
def test_baseline_and_ours_train_the_same_network(name, tiny_params, tiny_data, tmp_path, monkeypatch):
    from stages.tools.bench import torch_baseline

    monkeypatch.setattr(torch_baseline, "WORKERS", 0)
    steps = 40  # more than an epoch of the baseline
    ours = training.ours(tiny_params, name, steps, tmp_path)
    baseline = training.baseline(tiny_params, name, steps, tmp_path)
    for result in (ours, baseline):
        assert (result["device"], result["precision"], result["steps"]) == ("cpu", "float32", steps)
        assert result["images_per_second"] == pytest.approx(4 / result["step_seconds"])
        assert result["peak_memory_mb"] > 100
    assert 0 < ours["model_step_seconds"] < 10 * ours["step_seconds"]
    assert (tmp_path / "mlflow.db").exists()


def test_an_onnx_file_is_measured_in_a_process_without_frameworks(tmp_path):
    file = linear_onnx.of_colours(tmp_path / "model.onnx", np.eye(3) * 255)
    np.save(tmp_path / "batch.npy", np.zeros((4, 8, 8, 3), np.uint8))
    found = forward.measure(file, tmp_path / "batch.npy", 1)
    assert 0 < found["p50_ms"] <= found["p95_ms"]
    assert found["images_per_second"] > 0
    found = in_fresh_process(forward.measure, file, tmp_path / "batch.npy", 1)
    assert 0.05 < found["cold_start_seconds"] < 60
    assert found["memory_mb"] < 400  # torch alone takes more


def test_a_model_that_is_not_registered_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(UserError, match=r"^none@vit is not served: [^\n]+$"):
        serving.over_http("none@vit", np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(UserError, match=r"^none@vit classifies no files: [^\n]+$"):
        serving.from_files("none@vit", tmp_path)


def one_round(onnx_ms: float = 4.0, http_ms: float = 7.0, files: float = 950.0, memory_mb: float = 310.0):
    return {
        "framework": {"p50_ms": 12.0, "images_per_second": 400.0},
        "onnx": {"p50_ms": onnx_ms, "images_per_second": 1000.0},
        "http": {"p50_ms": http_ms},
        "files": {"images_per_second": files, "memory_mb": memory_mb},
        "few": {"memory_mb": 300.0},
    }


def verdict(figure: str, *rounds, classifier: str = "mobilenet_transfer"):
    verdicts = report.serving({"net": {"settings": {"classifier": classifier}, "rounds": rounds}})
    [found] = [one for one in verdicts if one["figure"] == figure]
    return found


@pytest.mark.parametrize(
    ("figure", "reached", "missed", "value"),
    [
        ("speedup_single", {"onnx_ms": 4.0}, {"onnx_ms": 4.1}, 3.0),
        ("http_ms", {"http_ms": 8.0}, {"http_ms": 8.1}, 4.0),
        ("files_share", {"files": 950.0}, {"files": 949.0}, 0.95),
        ("memory_growth", {"memory_mb": 315.0}, {"memory_mb": 316.0}, 1.05),
    ],
)
def test_a_goal_is_met_up_to_its_limit_and_not_beyond(figure, reached, missed, value):
    assert verdict(figure, one_round(**reached))["value"] == pytest.approx(value)
    assert verdict(figure, one_round(**reached))["met"]
    assert not verdict(figure, one_round(**missed))["met"]


def test_the_median_of_ratios_within_rounds_decides_and_a_classifier_without_goals_of_its_own_may_not_be_slower():
    rounds = one_round(onnx_ms=2.0), one_round(onnx_ms=3.0), one_round(onnx_ms=12.0)
    judged = verdict("speedup_single", *rounds, classifier="of_tomorrow")
    assert [judged[key] for key in ("low", "value", "high", "limit", "met")] == [1.0, 4.0, 6.0, 1.0, True]


def test_the_published_texts_follow_from_the_published_numbers(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports").mkdir()
    for name in ("benchmark", "serving"):
        (tmp_path / f"reports/{name}.json").write_text((REPORTS / f"{name}.json").read_text())
    monkeypatch.setattr(sys, "argv", ["bench", "--render"])
    bench.main()
    for name in ("benchmark.md", "serving.md"):
        assert (tmp_path / "reports" / name).read_text() == (REPORTS / name).read_text()
    assert "goals are met" in capsys.readouterr().out


def test_the_smallest_benchmark_leaves_two_files(monkeypatch, tiny_params, tiny_data, tmp_path):
    monkeypatch.setattr(bench.params, "read", lambda: tiny_params)
    monkeypatch.setattr(training, "baseline", process)
    monkeypatch.setattr(training, "interleave", lambda taken, rounds: {one[0]: [RESULT] * rounds for one in taken})
    monkeypatch.setattr(sys, "argv", ["bench", "training", "--rounds", "2", "--steps", "1"])
    bench.main()
    found = json.loads(Path("reports/benchmark.json").read_text())
    assert {len(rounds) for each in found["models"].values() for rounds in each.values()} == {2}
    assert "n = 2 rounds" in Path("reports/benchmark.md").read_text()
    assert list(paths.SCRATCH.iterdir()) == []
    monkeypatch.setattr(sys, "argv", ["bench", "--rounds=0"])
    with pytest.raises(SystemExit):
        bench.main()


MEASURED = {"device": "cpu", "threads": 1, "steps": 1, "precision": "float32", "num_parameters": 10}
MEASURED |= {"images_per_second": 100.0, "peak_memory_mb": 1000.0, "step_seconds": 0.64, "model_step_seconds": 0.6}
RESULT = {"ours": [MEASURED], "notebook": [MEASURED]}
