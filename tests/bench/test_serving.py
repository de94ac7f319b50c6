"""What answers cost: verdicts and text from given numbers, and measurements of real processes."""

import time

import numpy as np
import pytest

from stages.common import paths
from stages.common.errors import UserError
from stages.tools.bench import forward, serving, serving_report
from stages.tools.bench.job import run_program
from tests import linear_onnx

GOALS_OF_ONE = 5


def one_round(onnx_ms=4.0, http_ms=7.0, files=950.0, memory_mb=310.0):
    framework = {"p50_ms": 12.0, "p95_ms": 13.0, "images_per_second": 400.0, "memory_mb": 900.0}
    onnx = {"p50_ms": onnx_ms, "p95_ms": 5.0, "images_per_second": 1000.0, "memory_mb": 200.0}
    return {
        "framework": {**framework, "cold_start_seconds": 6.0},
        "onnx": {**onnx, "cold_start_seconds": 1.0},
        "http": {"p50_ms": http_ms, "p95_ms": 9.0},
        "files": {"images_per_second": files, "memory_mb": memory_mb},
        "few": {"images_per_second": 900.0, "memory_mb": 300.0},
    }


def model(rounds, classifier="mobilenet_transfer"):
    return {"settings": {"classifier": classifier}, "framework": "tensorflow 2.21.0", "rounds": rounds}


def report(models, **changes):
    facts = {
        "commit": "0123abcd",
        "uncommitted_changes": False,
        "weights": "random, after one step of training",
        "data": "demo",
        "image_size": 32,
        "hardware": {"cpu": "Some CPU", "cores": 2, "memory_gb": 16.0, "system": "Linux", "python": "3.11.7"},
        "load": 0.1,
        "threads": 2,
        "versions": {"openvino": "2026.4.1"},
        "images": 10_000,
        "few_images": 1000,
        "requests": 100,
        "batch": 64,
        "seconds": 5.0,
        "minutes": 12.3,
    }
    return facts | changes | {"models": models, "verdicts": serving_report.verdicts(models)}


def verdict(figure, *rounds, classifier="mobilenet_transfer"):
    judged = serving_report.verdicts({"net": model(rounds, classifier)})
    assert len(judged) == GOALS_OF_ONE
    return next(one for one in judged if one["figure"] == figure)


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


def test_the_median_of_ratios_within_rounds_decides():
    judged = verdict("speedup_single", one_round(onnx_ms=2.0), one_round(onnx_ms=3.0), one_round(onnx_ms=12.0))
    assert (judged["low"], judged["value"], judged["high"]) == (1.0, 4.0, 6.0)
    assert judged["met"]


def test_each_classifier_has_its_own_goal_and_an_unknown_one_should_not_be_slower_than_its_framework():
    for classifier, single, batches in [("vit_scratch", 1.35, 1.25), ("of_tomorrow", 1.0, 1.0)]:
        assert verdict("speedup_single", one_round(), classifier=classifier)["limit"] == single
        assert verdict("speedup_batches", one_round(), classifier=classifier)["limit"] == batches
    assert verdict("speedup_batches", one_round())["value"] == 2.5


def test_the_report_says_first_which_goals_are_not_met():
    text = serving_report.render(report({"net": model([one_round(http_ms=9.5), one_round(http_ms=8.5)])}))
    lines = text.splitlines()
    assert lines[2].startswith("4 of 5 goals are met. Not met: net, one JPEG over HTTP")
    assert "5.0 ms instead of at most 4.0 ms" in lines[2]
    assert any(line.endswith("| at most 4.0 ms | 5.0 ms (4.5 ms to 5.5 ms) | **not met** |") for line in lines)
    assert any(line.endswith("| at least 3.00x | 3.00x (3.00x to 3.00x) | met |") for line in lines)
    assert "| net | tensorflow 2.21.0 | 12.0 ms | 13.0 ms | 400 | 900 MiB | 6.0 s |" in lines
    assert "| net | 10,000 files |  |  | 950 | 310 MiB |  |" in lines


def test_the_report_names_the_code_it_measured():
    models = {"net": model([one_round()])}
    assert "Code: commit 0123abcd." in serving_report.render(report(models))
    assert "commit 0123abcd with uncommitted changes." in serving_report.render(
        report(models, uncommitted_changes=True)
    )
    assert "Code: of no known commit." in serving_report.render(report(models, commit=None))


def test_a_forward_pass_is_measured_in_a_process_without_frameworks(tmp_path):
    file = linear_onnx.of_colours(tmp_path / "model.onnx", np.eye(3) * 255)
    np.save(tmp_path / "batch.npy", np.zeros((4, 8, 8, 3), np.uint8))
    arguments = [str(file), str(tmp_path / "batch.npy"), "1", "0.05", str(time.time())]
    found = run_program("net", "do this", "stages.tools.bench.forward", *arguments)
    assert 0.05 < found["cold_start_seconds"] < 60
    assert 0 < found["p50_ms"] <= found["p95_ms"]
    assert found["images_per_second"] > 0
    assert found["memory_mb"] < 400  # torch alone takes more


def test_calls_before_the_measurement_do_not_count():
    calls = []
    found = forward.durations(lambda: calls.append(1), 0.0)
    assert len(found) == 1
    assert len(calls) == forward.WARM_UP + 1


def test_a_server_that_does_not_start_is_one_line(job_of, monkeypatch):
    monkeypatch.setattr(serving, "PATIENCE", 120.0)
    with pytest.raises(UserError, match=r"^vit_scratch is not served: [^\n]+$"), serving._server(job_of("vit_scratch")):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_scratch", "mobilenet_transfer"])
def test_a_model_is_exported_served_and_asked_through_real_processes(name, tiny_params, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "SCRATCH", tmp_path / "scratch")
    monkeypatch.setattr(paths, "PREPARED", tmp_path / "none")
    monkeypatch.setattr(serving, "SECONDS", 0.1)
    found = serving.measure(tiny_params, [name], rounds=1, images=100)
    (measured,) = found["models"][name]["rounds"]
    assert {way: measured[way].keys() for way in measured} == {way: each.keys() for way, each in one_round().items()}
    assert min(min(each.values()) for each in measured.values()) > 0
    assert measured["onnx"]["memory_mb"] < measured["framework"]["memory_mb"]
    assert len(found["verdicts"]) == GOALS_OF_ONE
    assert f"| {name} | HTTP |" in serving_report.render(found)
    assert list((tmp_path / "scratch").iterdir()) == []
