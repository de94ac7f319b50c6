"""What an exported model costs: size and time. Times depend on the machine and its load; say which beside them."""

import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stages.inference.onnx_model import OnnxModel

WARM_UP = 5  # calls that do not count
LATENCY_CALLS = 100
THROUGHPUT_BATCH = 64
THROUGHPUT_SECONDS = 3.0

_COLD_LOAD = """
import sys, time
start = time.perf_counter()
from stages.inference.onnx_model import OnnxModel
network = OnnxModel(sys.argv[1], int(sys.argv[2]))
import numpy
network.logits(numpy.zeros((1, network.image_size, network.image_size, 3), numpy.uint8))
print(time.perf_counter() - start)
"""


def forward_seconds(
    forward: Callable[[np.ndarray], object], images: np.ndarray, repeats: int, warm_up: int = WARM_UP
) -> list[float]:
    """Seconds that each of `repeats` calls forward(images) took, after `warm_up` calls that do not count."""
    seconds = []
    for _ in range(warm_up + repeats):
        start = time.perf_counter()
        forward(images)
        seconds.append(time.perf_counter() - start)
    return seconds[warm_up:]


def measure(network: OnnxModel, file: Path, threads: int) -> dict[str, Any]:
    """Cost of a network that was loaded from `file` to run in so many threads.

    weights_bytes: of the file; cold_load_seconds: a fresh Python process until its first prediction; latency_p50_ms and
    latency_p95_ms at batch size 1; throughput_images_per_second at batch size 64.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (THROUGHPUT_BATCH, network.image_size, network.image_size, 3), dtype=np.uint8)
    latencies = np.array(forward_seconds(network.logits, images[:1], LATENCY_CALLS)) * 1e3
    [one_batch] = forward_seconds(network.logits, images, 1, warm_up=1)
    batches = forward_seconds(network.logits, images, math.ceil(THROUGHPUT_SECONDS / one_batch), warm_up=0)
    return {
        "weights_bytes": file.stat().st_size,
        "cold_load_seconds": round(_cold_load(file, threads), 2),
        "latency_p50_ms": round(float(np.percentile(latencies, 50)), 2),
        "latency_p95_ms": round(float(np.percentile(latencies, 95)), 2),
        "throughput_images_per_second": round(len(images) * len(batches) / sum(batches), 1),
    }


def _cold_load(file: Path, threads: int) -> float:
    command = [sys.executable, "-c", _COLD_LOAD, str(file), str(threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
