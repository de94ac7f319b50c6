"""One network in a process that does nothing else: how soon it predicts, with how much memory, and how fast.

Imports what is heavy where it is used: the cold start counts what predictions need, and no more.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from psutil import Process

from stages.common.hardware import peak_memory_mb

BATCH = 64  # images
CALLS, BATCHES = 200, 10  # that are measured, of one image and of a batch each


def measure(model: Path, images_file: Path, threads: int) -> dict[str, float]:
    """A saved classifier's folder or an ONNX file, in float32 on the CPU, on images (64, S, S, 3) uint8 as .npy."""
    import numpy as np

    images = np.load(images_file)
    logits = load(model, threads)
    logits(images[:1])
    found = {"cold_start_seconds": time.time() - Process().create_time(), "memory_mb": peak_memory_mb()}
    from stages.evaluation.cost import forward_seconds

    p50, p95 = np.percentile(forward_seconds(logits, images[:1], CALLS), (50, 95)) * 1e3
    return found | {
        "p50_ms": float(p50),
        "p95_ms": float(p95),
        "images_per_second": len(images) * BATCHES / sum(forward_seconds(logits, images, BATCHES)),
    }


def load(model: Path, threads: int) -> Callable[[Any], Any]:
    """Images (N, S, S, 3) uint8 to logits (N, C) float32: by the framework, or by what runs ONNX files."""
    if model.is_file():
        from stages.inference.onnx_model import OnnxModel

        return OnnxModel(model, threads).logits
    from stages.common.settings import Compute
    from stages.models import DESCRIPTION, classifier_class, load

    name = json.loads((model / DESCRIPTION).read_text(encoding="utf-8"))["classifier"]
    classifier_class(name).configure(Compute(accelerator="cpu", threads=threads))
    return load(model).logits
