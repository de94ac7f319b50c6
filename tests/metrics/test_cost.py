"""What cost counts and times, on a classifier that takes as long as told; one test loads a real one."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from stages import classifiers, params
from stages.metrics import cost


class Paced:
    """Takes `seconds` for each call, one after the other, then the last of them for good; nothing else takes any."""

    image_size, num_parameters = 32, 7

    def __init__(self, seconds: list[float]) -> None:
        self.now, self.seconds, self.batches = 0.0, seconds, []

    def logits(self, images: np.ndarray) -> np.ndarray:
        assert images.dtype == np.uint8
        self.batches.append(len(images))
        self.now += self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        return np.zeros((len(images), 5), np.float32)

    def multiply_adds(self) -> int:
        return 11


def cost_of(classifier, tmp_path, monkeypatch):
    (tmp_path / "weights").write_bytes(bytes(300))
    (tmp_path / "about.json").write_bytes(bytes(20))
    monkeypatch.setattr(cost.time, "perf_counter", lambda: classifier.now)
    monkeypatch.setattr(cost, "_cold_load", lambda folder: 1.234567)
    return cost.measure(classifier, tmp_path)


def test_sizes_are_those_of_the_classifier_and_of_its_largest_file(tmp_path, monkeypatch):
    found = cost_of(Paced([0.5]), tmp_path, monkeypatch)
    assert (found["num_parameters"], found["multiply_adds"], found["weights_bytes"]) == (7, 11, 300)
    assert found["cold_load_seconds"] == 1.23


def test_latencies_are_percentiles_of_single_pictures_after_a_warm_up(tmp_path, monkeypatch):
    # Slow at first; then 1 to 100 ms.
    classifier = Paced([9.0] * cost.WARM_UP + [milliseconds / 1e3 for milliseconds in range(1, 101)] + [1.0])
    found = cost_of(classifier, tmp_path, monkeypatch)
    assert found["latency_p50_ms"] == pytest.approx(50.5)
    assert found["latency_p95_ms"] == pytest.approx(95.05)
    assert classifier.batches[: cost.WARM_UP + cost.LATENCY_CALLS] == [1] * (cost.WARM_UP + cost.LATENCY_CALLS)


def test_throughput_counts_whole_batches_and_leaves_the_first_out(tmp_path, monkeypatch):
    calls = cost.WARM_UP + cost.LATENCY_CALLS
    classifier = Paced([0.01] * calls + [50.0, 0.8])  # the first batch of many takes 50 s
    found = cost_of(classifier, tmp_path, monkeypatch)
    # Four batches of 0.8 s until 3 s are over.
    assert classifier.batches[calls:] == [cost.THROUGHPUT_BATCH] * 5
    assert found["throughput_images_per_second"] == pytest.approx(cost.THROUGHPUT_BATCH / 0.8, abs=0.06)


def test_a_cold_load_is_timed_in_a_python_of_its_own(tmp_path):
    section = params.read(Path(__file__).parents[2] / "params.yaml").model("vit_scratch")
    small = {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    settings = type(section).model_validate(section.model_dump() | small)
    model = tmp_path / "model"
    model.mkdir()
    classifiers.classifier_class("vit_scratch")(settings, 4, 32, 0).save(model)
    assert cost._cold_load(model) > 0.1  # no process imports torch in less
    (model / "weights.safetensors").write_bytes(b"")
    with pytest.raises(subprocess.CalledProcessError):  # it has really loaded the model before
        cost._cold_load(model)
