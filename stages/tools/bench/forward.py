"""One network in a process that does nothing else: how soon it answers, with how much memory, and how fast.

Imports what is heavy where it is used: the cold start counts what answering needs, and no more.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from stages.common.errors import one_line_errors
from stages.common.hardware import peak_memory_mb

if TYPE_CHECKING:
    import numpy as np

    Logits = Callable[["np.ndarray"], "np.ndarray"]  # (N, S, S, 3) uint8 to (N, C) float32

BATCH = 64  # images
WARM_UP = 5  # calls that are not measured


def main() -> None:
    """Arguments: a saved classifier's folder or an ONNX file; images (64, S, S, 3) as .npy; threads; seconds for each
    of the two measurements; when the process was started, in seconds since 1970. Prints one line of JSON.
    """
    model, images_file, threads, seconds, started = sys.argv[1:]
    import numpy as np

    images = np.load(images_file)
    logits = load(Path(model), int(threads))
    logits(images[:1])
    found = {"cold_start_seconds": time.time() - float(started), "memory_mb": peak_memory_mb()}
    single = durations(lambda: logits(images[:1]), float(seconds))
    batches = durations(lambda: logits(images), float(seconds))
    found |= {
        "p50_ms": float(np.percentile(single, 50)) * 1e3,
        "p95_ms": float(np.percentile(single, 95)) * 1e3,
        "images_per_second": len(images) * len(batches) / sum(batches),
    }
    print(json.dumps(found))


def load(model: Path, threads: int) -> "Logits":
    """The forward pass, in float32 on the CPU: of a saved classifier's folder by its framework, or of an ONNX file."""
    if model.is_file():
        from stages.inference.onnx_model import OnnxModel

        return OnnxModel(model, threads).logits
    from stages.common.settings import Compute
    from stages.models import DESCRIPTION, classifier_class, load

    name = json.loads((model / DESCRIPTION).read_text(encoding="utf-8"))["classifier"]
    classifier_class(name).configure(Compute(accelerator="cpu", threads=threads))
    return load(model).logits


def durations(call: Callable[[], object], seconds: float) -> list[float]:
    """How long each call took, in seconds, for as many as `seconds` hold, after some that do not count."""
    for _ in range(WARM_UP):
        call()
    found: list[float] = []
    end = time.perf_counter() + seconds
    while (started := time.perf_counter()) < end or not found:
        call()
        found.append(time.perf_counter() - started)
    return found


if __name__ == "__main__":
    with one_line_errors("measuring"):
        main()
