"""`make bench`: baseline and ours really trained for a few steps, real processes, and figures from given numbers."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from stages.common import paths
from stages.common.errors import UserError
from stages.common.files import json_sha256
from stages.report import markdown
from stages.tools.bench import __main__ as bench
from stages.tools.bench import accuracy, forward, report, serving, training
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
    verdicts = report.serving({"models": {"net": {"settings": {"classifier": classifier}, "rounds": rounds}}})
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
    published = [name for name in bench.FILES.values() if (REPORTS / f"{name}.json").exists()]
    assert {"benchmark", "serving"} <= {*published}
    for name in published:
        (tmp_path / f"reports/{name}.json").write_text((REPORTS / f"{name}.json").read_text())
    monkeypatch.setattr(sys, "argv", ["bench", "--render"])
    bench.main()
    for name in published:
        assert (tmp_path / f"reports/{name}.md").read_text() == (REPORTS / f"{name}.md").read_text()
    assert "goals are met" in capsys.readouterr().out


def test_the_smallest_benchmark_leaves_its_two_files_and_others_as_they_were(
    monkeypatch, tiny_params, tiny_data, tmp_path
):
    monkeypatch.setattr(bench.params, "read", lambda: tiny_params)
    monkeypatch.setattr(training, "in_fresh_process", lambda function, *arguments: {"precision": "float32"})
    monkeypatch.setattr(training, "baseline", process)
    monkeypatch.setattr(training, "interleave", lambda taken, rounds: {one[0]: [RESULT] * rounds for one in taken})
    monkeypatch.setattr(sys, "argv", ["bench", "training", "--rounds", "2", "--steps", "1"])
    others = [Path(f"reports/{name}.json") for name in ("time_to_accuracy", "serving")]
    Path("reports").mkdir()
    for file in others:
        file.write_text("published")
    bench.main()
    found = json.loads(Path("reports/benchmark.json").read_text())
    assert {len(rounds) for each in found["models"].values() for rounds in each.values()} == {2}
    assert found["data_sha256"] == tiny_data.data_sha256
    assert found["params_sha256"] == json_sha256(tiny_params.model_dump())
    assert {"commit", "uncommitted_changes", "hardware", "versions", "date"} <= found.keys()
    text = Path("reports/benchmark.md").read_text()
    assert "n = 2 rounds" in text
    assert f"parameters: sha256 `{found['params_sha256'][:16]}`" in text
    assert [file.read_text() for file in others] == ["published"] * 2
    assert list(paths.SCRATCH.iterdir()) == []
    monkeypatch.setattr(sys, "argv", ["bench", "--rounds=0"])
    with pytest.raises(SystemExit):
        bench.main()


def test_a_model_that_trains_in_less_than_float32_has_a_second_row_in_float32():
    fast, same = MEASURED | {"precision": "bfloat16", "images_per_second": 300.0}, MEASURED
    found = {"models": {"net": {"baseline": [MEASURED] * 2, "ours": [fast] * 2, "float32": [same] * 2}, "slow": RESULT}}
    figures = report.training(found)
    assert {label: figure["speedup"].tolist() for label, figure in figures.items()} == {
        "net": [3.0, 3.0],
        "net in float32": [1.0, 1.0],
        "slow": [1.0],
    }
    assert figures["net in float32"]["model"] == "net"


def test_a_curve_validates_evenly_and_its_clock_stands_still_meanwhile(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(accuracy.time, "perf_counter", lambda: now[0])
    network = torch.nn.Linear(1, 1)

    def forward(images):
        assert not network.training
        now[0] += 1000
        return torch.nn.functional.one_hot(images.flatten().long(), 4)

    val = LabeledImages(np.array([[0], [1], [2], [3]], np.uint8), np.array([0, 1, 3, 2]))
    curve = accuracy.Curve(forward, network, val, target=0.6)
    curve.start(images=390, batch_size=10)
    ended = []
    while not ended or not ended[-1]:
        now[0] += 1
        ended.append(curve())
    assert len(ended) == 39, "steps of an epoch, for 0.5 is less than 0.6"
    assert [row["top1"] for row in curve.rows] == [0.5] * accuracy.POINTS
    assert [row["seconds"] for row in curve.rows] == sorted(curve.points)
    assert [row["images"] for row in curve.rows] == [10 * step for step in sorted(curve.points)]
    assert max(np.diff([0, *sorted(curve.points)])) == 2
    curve = accuracy.Curve(forward, network, val, target=0.5)
    curve.start(images=390, batch_size=10)
    assert [curve(), curve()] == [False, True]
    assert network.training


@pytest.mark.parametrize(("target", "looks"), [(0.0, 1), (2.0, accuracy.POINTS)])
def test_ours_and_the_recipe_are_trained_until_the_target_or_for_an_epoch(
    target, looks, tiny_params, tiny_data, tmp_path, monkeypatch
):
    from stages.tools.bench import torch_baseline

    monkeypatch.setattr(torch_baseline, "WORKERS", 0)
    monkeypatch.setattr(accuracy, "RECIPE", accuracy.RECIPE | {"patch_size": 8, "embed_dim": 24, "depth": 1})
    monkeypatch.setattr(accuracy, "BATCH_SIZE", 5)
    ours = accuracy.ours(tiny_params, "vit_scratch", target, tmp_path)
    baseline = accuracy.baseline(tiny_params, "vit_scratch", target, tmp_path)
    for result, batch_size in ((ours, 4), (baseline, 5)):
        assert (len(result["curve"]), result["val_images"]) == (looks, 20)
        seconds = [row["seconds"] for row in result["curve"]]
        assert seconds[0] > 0 and seconds == sorted(seconds)
        assert result["curve"][-1]["images"] == (120 if looks > 1 else batch_size * round(120 / batch_size / 20))
        assert result["facts"]["batch_size"] == batch_size
    assert (ours["facts"]["optimizer"], baseline["facts"]["optimizer"]) == ("Muon", "AdamW")
    assert baseline["facts"]["learning_rates"] == [torch_baseline.LEARNING_RATE]
    assert max(ours["facts"]["learning_rates"]) == tiny_params.model("vit_scratch").muon_lr


def test_time_to_accuracy_is_measured_for_each_seed_and_way(tiny_params, tiny_data, tmp_path, monkeypatch):
    taken = []

    def interleave(measurements, rounds):
        taken.extend((way, seed, own.seed, own.compute.precision) for way, seed, _, own, *_ in measurements)
        return {way: [{seed: [trained(0.2)] for way, seed, *_ in measurements}] for way, *_ in measurements}

    paths.NOTEBOOKS.parent.mkdir(parents=True)
    paths.NOTEBOOKS.write_text((REPORTS / "notebooks.json").read_text())
    monkeypatch.setattr(accuracy, "interleave", interleave)
    monkeypatch.setattr(accuracy, "in_fresh_process", lambda *_: {"precision": "bfloat16"})
    fast = tiny_params.model_copy(update={"compute": tiny_params.compute.model_copy(update={"precision": "auto"})})
    found = accuracy.measure(fast, tmp_path, 2)
    assert taken == [
        (way, f"seed {seed}", seed, "float32" if way == "float32" else "auto")
        for seed in (0, 1)
        for way in ("baseline", "ours", "float32")
    ]
    assert (found["model"], found["target"]) == ("vit_scratch", 0.164)
    assert {way: list(runs) for way, runs in found["ways"].items()} == {way: ["0", "1"] for way in found["ways"]}
    with pytest.raises(UserError, match=r"^params.yaml has no model of the classifier vit_scratch: [^\n]+$"):
        accuracy.measure(fast.model_copy(update={"models": {}}), tmp_path, 1)


def trained(top1: float, minutes: float = 1.0, **facts: object) -> dict:
    facts = {"precision": "float32", "batch_size": 64, "crop_padding": 4, "dropout": 0.0, "flip": True} | facts
    curve = [{"images": 500, "seconds": 1.0, "top1": 0.01}, {"images": 1000, "seconds": 60 * minutes, "top1": top1}]
    return {"facts": facts, "curve": curve, "val_images": 2500}


def accuracy_text(**ways: list[dict]) -> str:
    found = {
        "model": "vit",
        "target": 0.164,
        "source": "printed",
        "points": 20,
        "threads": 2,
        "minutes": 9.0,
        "data": "d",
    }
    found |= {"ways": {way: {str(seed): run for seed, run in enumerate(runs)} for way, runs in ways.items()}}
    found |= {"hardware": dict.fromkeys(("cpu", "cores", "memory_gb", "system", "python"), "x"), "versions": {}}
    figures = report.accuracy(found)
    return markdown.render(bench.TEMPLATES / "accuracy.md.j2", **found, figures=figures)


def test_a_baseline_that_gets_there_is_compared_seed_by_seed():
    fast = [trained(0.2, minutes, precision="bfloat16") for minutes in (1.0, 4.0)]
    slow = [trained(0.2, minutes) for minutes in (2.0, 6.0)]
    text = accuracy_text(baseline=[trained(0.17, 4.0), trained(0.18, 8.0)], ours=fast, float32=slow)
    first = text.splitlines()[2]
    assert first.startswith("vit reaches 16.4% top-1 on validation after **2.5** (1.0 to 4.0) minutes in bfloat16; in")
    assert "in float32 it reaches 16.4% top-1 on validation after **4.0** (2.0 to 6.0) minutes. The baseline" in first
    assert "The baseline, in float32, reaches it after **6.0** (4.0 to 8.0) minutes. Ours over baseline: " in first
    assert first.endswith("**0.38** (0.25 to 0.50), in float32 both **0.62** (0.50 to 0.75).")
    assert "does not follow" not in text


def test_a_baseline_that_does_not_get_there_gives_a_bound_and_the_text_says_how_far_it_got():
    text = accuracy_text(baseline=[trained(0.10, 5.0), trained(0.11, 5.0)], ours=[trained(0.2), trained(0.2)])
    first = text.splitlines()[2]
    assert "in float32, ends its epoch at **10.5%** (10.0% to 11.0%) after **5.0** (5.0 to 5.0) minutes. Ours" in first
    assert first.endswith("bounds from above, for the baseline would need longer: **0.20** (0.20 to 0.20).")
    assert "so a speed-up over the notebook itself, whose settings are not known, does not follow" in text
    assert "| the baseline | float32 | 1 | **no**, epoch over | 5.00 | 1,000 | 11.0% |" in text


def test_where_only_some_seeds_get_there_both_outcomes_are_told_and_no_ratio():
    text = accuracy_text(baseline=[trained(0.17, 5.0), trained(0.11, 6.0)], ours=[trained(0.1), trained(0.2)])
    ours, baseline = text.splitlines()[2].split(". The baseline, ")
    assert ours.startswith("vit reaches 16.4% top-1 on validation after **1.0** (1.0 to 1.0) minutes (1 of 2 seeds) in")
    assert ours.endswith("and ends its epoch at **10.0%** (10.0% to 10.0%) after **1.0** (1.0 to 1.0) minutes")
    assert baseline.startswith("in float32, reaches it after **5.0** (5.0 to 5.0) minutes (1 of 2 seeds) and ends its")
    assert baseline.endswith("after **6.0** (6.0 to 6.0) minutes.")


def test_what_else_differs_is_derived_from_what_was_trained():
    ours = trained(0.2, batch_size=32, crop_padding=0, label_smoothing=0.0, pool="mean", learning_rates=[0.001, 0.002])
    figures = accuracy_text(baseline=[trained(0.1, learning_rates=[0.001])], ours=[ours])
    table = figures.partition("## What else differs")[2].partition("##")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert rows == [
        "| batch size | 64 | 32 |",
        "| crop padding | 4 | 0 |",
        "| learning rates | 0.001 | 0.001, 0.002 |",
        "| pool | - | mean |",
    ]
    assert "The same: precision, dropout, flip, label smoothing." in table


MEASURED = {"device": "cpu", "threads": 1, "steps": 1, "precision": "float32", "num_parameters": 10}
MEASURED |= {"images_per_second": 100.0, "peak_memory_mb": 1000.0, "step_seconds": 0.64, "model_step_seconds": 0.6}
RESULT = {"baseline": [MEASURED], "ours": [MEASURED]}
