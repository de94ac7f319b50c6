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


def cost_of(network, tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_bytes(bytes(300))
    monkeypatch.setattr(cost.time, "perf_counter", lambda: network.now)
    monkeypatch.setattr(cost, "_cold_load", lambda file, threads: 1.234567)
    return cost.measure(network, tmp_path / "model.onnx", threads=1)


def test_size_and_latencies_of_single_images_after_a_warm_up(tmp_path, monkeypatch):
    # Slow at first; then 1 to 100 ms.
    network = Paced([9.0] * cost.WARM_UP + [milliseconds / 1e3 for milliseconds in range(1, 101)] + [1.0])
    found = cost_of(network, tmp_path, monkeypatch)
    assert (found["weights_bytes"], found["cold_load_seconds"]) == (300, 1.23)
    assert found["latency_p50_ms"] == pytest.approx(50.5)
    assert found["latency_p95_ms"] == pytest.approx(95.05)
    assert network.batches[: cost.WARM_UP + cost.LATENCY_CALLS] == [1] * (cost.WARM_UP + cost.LATENCY_CALLS)


def test_throughput_counts_batches_for_about_three_seconds_and_leaves_the_first_out(tmp_path, monkeypatch):
    calls = cost.WARM_UP + cost.LATENCY_CALLS
    network = Paced([0.01] * calls + [50.0, 0.8])  # the first batch of many takes 50 s
    found = cost_of(network, tmp_path, monkeypatch)
    # One that does not count, one to choose how many, then four of 0.8 s: 3 s and more.
    assert network.batches[calls:] == [cost.THROUGHPUT_BATCH] * 6
    assert found["throughput_images_per_second"] == pytest.approx(cost.THROUGHPUT_BATCH / 0.8, abs=0.06)


def test_a_cold_load_is_timed_in_a_python_of_its_own(tmp_path):
    file = linear_onnx.write(tmp_path / "model.onnx", np.zeros((8 * 8 * 3, 2)))
    assert cost._cold_load(file, 1) > 0.05  # no process imports numpy and a runtime in less
    file.write_bytes(b"")
    with pytest.raises(subprocess.CalledProcessError):  # it has really loaded the model before
        cost._cold_load(file, 1)
