"""What an exported model costs: size and time. Times depend on the machine and its load; say which beside them."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from stages.inference.onnx_model import OnnxModel

WARM_UP = 5
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


def measure(network: OnnxModel, file: Path, threads: int) -> dict[str, Any]:
    """Cost of a network that was loaded from `file` to run in so many threads.

    weights_bytes: of the file; cold_load_seconds: a fresh Python process until its first answer; latency_p50_ms and
    latency_p95_ms at batch 1; throughput_images_per_second at batch 64.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (THROUGHPUT_BATCH, network.image_size, network.image_size, 3), dtype=np.uint8)
    latencies = _latencies(network, images[:1])
    return {
        "weights_bytes": file.stat().st_size,
        "cold_load_seconds": round(_cold_load(file, threads), 2),
        "latency_p50_ms": round(float(np.percentile(latencies, 50)) * 1e3, 2),
        "latency_p95_ms": round(float(np.percentile(latencies, 95)) * 1e3, 2),
        "throughput_images_per_second": round(_throughput(network, images), 1),
    }


def _latencies(network: OnnxModel, image: np.ndarray) -> list[float]:
    seconds = []
    for _ in range(WARM_UP + LATENCY_CALLS):
        start = time.perf_counter()
        network.logits(image)
        seconds.append(time.perf_counter() - start)
    return seconds[WARM_UP:]


def _throughput(network: OnnxModel, images: np.ndarray) -> float:
    network.logits(images)
    start, batches = time.perf_counter(), 0
    while time.perf_counter() - start < THROUGHPUT_SECONDS:
        network.logits(images)
        batches += 1
    return batches * len(images) / (time.perf_counter() - start)


def _cold_load(file: Path, threads: int) -> float:
    command = [sys.executable, "-c", _COLD_LOAD, str(file), str(threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
