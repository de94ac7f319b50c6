"""Cost of a network that takes as long as told; one test loads a real one."""

import subprocess

import numpy as np
import pytest

from stages.evaluation import cost
from tests import linear_onnx


class Paced:
    """Takes `seconds` for each call, one after the other, then the last of them for good; nothing else takes any."""

    image_size = 32

    def __init__(self, seconds: list[float]) -> None:
        self.now, self.seconds, self.batches = 0.0, seconds, []

    def logits(self, images: np.ndarray) -> np.ndarray:
        assert images.dtype == np.uint8
        self.batches.append(len(images))
        self.now += self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        return np.zeros((len(images), 5), np.float32)


def test_latency_is_of_single_images_and_throughput_of_batches_for_about_three_seconds(tmp_path, monkeypatch):
    # Slow at first; then 1 to 100 ms; the first batch of many takes 50 s.
    network = Paced([9.0] * cost.WARM_UP + [milliseconds / 1e3 for milliseconds in range(1, 101)] + [50.0, 0.8])
    (tmp_path / "model.onnx").write_bytes(bytes(300))
    monkeypatch.setattr(cost.time, "perf_counter", lambda: network.now)
    monkeypatch.setattr(cost, "_cold_load", lambda file, threads: 1.234567)
    assert cost.measure(network, tmp_path / "model.onnx", threads=1) == {
        "weights_bytes": 300,
        "cold_load_seconds": 1.23,
        "latency_p50_ms": pytest.approx(50.5),
        "latency_p95_ms": pytest.approx(95.05),
        "throughput_images_per_second": pytest.approx(cost.THROUGHPUT_BATCH / 0.8, abs=0.06),
    }
    # Of the batches one does not count, one chooses how many, then four of 0.8 s: 3 s and more.
    assert network.batches == [1] * (cost.WARM_UP + cost.LATENCY_CALLS) + [cost.THROUGHPUT_BATCH] * 6


def test_a_cold_load_is_timed_in_a_python_of_its_own(tmp_path):
    file = linear_onnx.write(tmp_path / "model.onnx", np.zeros((8 * 8 * 3, 2)))
    assert cost._cold_load(file, 1) > 0.05  # no process imports numpy and a runtime in less
    file.write_bytes(b"")
    with pytest.raises(subprocess.CalledProcessError):  # it has really loaded the model before
        cost._cold_load(file, 1)
