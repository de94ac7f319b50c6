"""What a prediction costs: the ONNX file against the framework that trained it, over HTTP, and from image files."""

import io
import re
import resource
import subprocess
import sys
from http.client import HTTPConnection
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from stages.common import paths
from stages.common.errors import UserError
from stages.data.dataset import Prepared
from stages.evaluation.cost import forward_seconds
from stages.inference.exported import Exported
from stages.models.params import Params
from stages.tools.bench import forward
from stages.tools.bench.rounds import Measurement, interleave

FEW = 10  # times fewer files, to see whether memory grows
REQUESTS = 100  # in each round, of one image each


def measure(settings: Params, scratch: Path, rounds: int, images: int) -> dict[str, Any]:
    """What reports/serving.json holds of the models: those that were trained, exported and registered last."""
    prepared, threads, batch = Prepared.open(paths.PREPARED), settings.compute.cpu_threads, scratch / "batch.npy"
    pixels, _ = prepared.split("test")
    np.save(batch, np.resize(pixels, (forward.BATCH, *pixels.shape[1:])))
    counts = {"files": images, "few": max(1, images // FEW)}
    for way, count in counts.items():
        (scratch / way).mkdir()
        for index in range(count):
            Image.fromarray(pixels[index % len(pixels)]).save(scratch / way / f"{index:06}.png")
    measurements: list[Measurement] = []
    for name in settings.models:
        registered, exported = f"{prepared.source}-classifier@{name}", Exported.open(name)
        framework = (name, "framework", forward.measure, paths.MODELS / name / str(exported.seed), batch, threads)
        onnx = (name, "onnx", forward.measure, exported.verified(), batch, threads)
        http = (name, "http", over_http, registered, pixels[:REQUESTS])
        files = [(name, way, from_files, registered, scratch / way) for way in counts]
        # Two of them again: a machine that becomes slower or faster meanwhile weighs on all alike.
        measurements += [framework, onnx, http, *files, onnx, framework]
    found = interleave(measurements, rounds)
    models = {
        name: {
            "settings": model.model_dump(),
            "precision": Exported.open(name).precision,
            "rounds": [{way: pd.DataFrame(each).mean().to_dict() for way, each in one.items()} for one in found[name]],
        }
        for name, model in settings.models.items()
    }
    sizes = {"image_size": prepared.image_size, "images": images, "few_images": counts["few"], "requests": REQUESTS}
    sizes |= {"batch": forward.BATCH, "calls": forward.CALLS, "batches": forward.BATCHES}
    return {"weights": "trained", **sizes, "models": models}


def over_http(registered: str, pixels: np.ndarray) -> dict[str, float]:
    """Milliseconds of requests with one JPEG each, images (N, S, S, 3) uint8; UserError where it is not served."""
    command = [sys.executable, "-m", "gui.server", "--model", registered, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            served = re.search(r"http://([^/]+)", process.stdout.readline() if process.stdout else "")
            if served is None:
                raise UserError(f"{registered} is not served: {_last_words(process.communicate()[1])}")
            connection, jpegs = HTTPConnection(served[1]), cycle([_jpeg(image) for image in pixels])

            def post(_: object) -> None:
                connection.request("POST", "/classify", next(jpegs), {"Content-Type": "image/jpeg"})
                response = connection.getresponse()
                if response.status != 200:
                    raise UserError(f"{registered} answers a JPEG with {response.status}: {response.read()[:300]!r}")
                response.read()

            p50, p95 = np.percentile(forward_seconds(post, pixels, REQUESTS), (50, 95)) * 1e3
        finally:
            process.terminate()
    return {"p50_ms": float(p50), "p95_ms": float(p95)}


def _jpeg(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


def from_files(registered: str, folder: Path) -> dict[str, float]:
    """What the command line says of its speed, loading left out, and its peak RAM: to be run in a fresh process."""
    command = [sys.executable, "-m", "gui.classify", str(folder), "--model", registered, "--csv", f"{folder}.csv"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    speed = re.search(r"([\d.,]+) (?:images )?(?:a|per) second", done.stderr)
    if done.returncode or speed is None:
        raise UserError(f"{registered} classifies no files: {_last_words(done.stderr)}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return {"images_per_second": float(speed[1].replace(",", "")), "memory_mb": peak}


def _last_words(text: str) -> str:
    return " ".join(text.split())[-300:]
