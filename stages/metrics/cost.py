"""What a classifier costs: size, work, time. Times depend on the machine and its load; say which beside them."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from stages.classifiers.classifier import Classifier

WARM_UP = 5
LATENCY_CALLS = 100
THROUGHPUT_BATCH = 64
THROUGHPUT_SECONDS = 3.0

_COLD_LOAD = """
import sys, time
start = time.perf_counter()
from stages import classifiers
classifier = classifiers.load(sys.argv[1])
import numpy
classifier.logits(numpy.zeros((1, classifier.image_size, classifier.image_size, 3), numpy.uint8))
print(time.perf_counter() - start)
"""


def measure(classifier: Classifier, folder: Path) -> dict[str, Any]:
    """Cost of a classifier that was saved in `folder` and computes on the CPU.

    num_parameters; multiply_adds of one picture; weights_bytes; cold_load_seconds (a fresh Python process until the
    first answer); latency_p50_ms and latency_p95_ms at batch 1; throughput_images_per_second at batch 64.
    """
    rng = np.random.default_rng(0)
    size = classifier.image_size
    images = rng.integers(0, 256, (THROUGHPUT_BATCH, size, size, 3), dtype=np.uint8)
    latencies = _latencies(classifier, images[:1])
    return {
        "num_parameters": classifier.num_parameters,
        "multiply_adds": classifier.multiply_adds(),
        "weights_bytes": max(file.stat().st_size for file in folder.iterdir()),
        "cold_load_seconds": round(_cold_load(folder), 2),
        "latency_p50_ms": round(float(np.percentile(latencies, 50)) * 1e3, 2),
        "latency_p95_ms": round(float(np.percentile(latencies, 95)) * 1e3, 2),
        "throughput_images_per_second": round(_throughput(classifier, images), 1),
    }


def _latencies(classifier: Classifier, image: np.ndarray) -> list[float]:
    seconds = []
    for _ in range(WARM_UP + LATENCY_CALLS):
        start = time.perf_counter()
        classifier.logits(image)
        seconds.append(time.perf_counter() - start)
    return seconds[WARM_UP:]


def _throughput(classifier: Classifier, images: np.ndarray) -> float:
    classifier.logits(images)
    start, batches = time.perf_counter(), 0
    while time.perf_counter() - start < THROUGHPUT_SECONDS:
        classifier.logits(images)
        batches += 1
    return batches * len(images) / (time.perf_counter() - start)


def _cold_load(folder: Path) -> float:
    command = [sys.executable, "-c", _COLD_LOAD, str(folder)]
    on_cpu = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}  # as all the rest is measured
    return float(subprocess.run(command, env=on_cpu, check=True, capture_output=True, text=True).stdout.split()[-1])
