"""What an answer costs: the ONNX file against the framework that trained it, over HTTP, and from image files.

Networks with random weights after a step of training, exported and registered in a store of their own; of the
processes that compute, one runs at a time. Writes reports/serving.md and reports/serving.json.
"""

import argparse
import http.client
import io
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from PIL import Image

from stages.common import hardware, paths
from stages.common.errors import UserError, one_line_errors
from stages.common.files import write_json, write_text
from stages.data.dataset import Prepared
from stages.models import DESCRIPTION, params
from stages.tools.bench.forward import BATCH, WARM_UP
from stages.tools.bench.job import PATIENCE, Job, run_program
from stages.tools.bench.serving_report import headline, render, verdicts
from stages.tracking.lineage import git_tags

ROUNDS = 3
IMAGES = 10_000  # files for the command line
FEW = 10  # times fewer of them, to see whether memory grows
REQUESTS = 100  # in each round, of one image each
SECONDS = 5.0  # for each of the two measurements of a forward pass
RUNNERS = ("framework", "onnx")
LIBRARIES = ("openvino", "numpy", "pillow", "mlflow", "starlette", "uvicorn")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.tools.bench.serving", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"(default: {ROUNDS})")
    parser.add_argument("--images", type=int, default=IMAGES, help=f"files to classify (default: {IMAGES:,})")
    parser.add_argument("models", nargs="*", help="of params.yaml (default: all)")
    arguments = parser.parse_args()
    if min(arguments.rounds, arguments.images) < 1:
        parser.error("--rounds and --images take whole numbers from 1")
    found = measure(params.read(), arguments.models, rounds=arguments.rounds, images=arguments.images)
    write_json(paths.REPORTS / "serving.json", found)
    write_text(paths.REPORTS / "serving.md", render(found))
    print(f"{headline(found['verdicts'])}\n{paths.REPORTS / 'serving.md'}")


def measure(settings: params.Params, models: Sequence[str], *, rounds: int, images: int) -> dict[str, Any]:
    """All that reports/serving.json holds. Leaves no other file."""
    started = time.monotonic()
    load = os.getloadavg()[0]  # of what else runs here
    git = git_tags(ignoring=[paths.REPORTS])  # now: files may change meanwhile
    prepared = Prepared.open(paths.PREPARED) if paths.PREPARED.exists() else None
    few = max(1, images // FEW)
    paths.SCRATCH.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bench-", dir=paths.SCRATCH.resolve()) as scratch:
        jobs = {name: Job.of(settings, name, prepared, scratch) for name in models or settings.models}
        _write_images(next(iter(jobs.values())), {"files": images, "few": few})
        for name, job in jobs.items():
            registered = job.run("serving.register")
            with _server(job) as port:
                found[name] = {**registered, "rounds": [_round(job, port, number + 1) for number in range(rounds)]}
    return {
        "commit": git.get("git_commit"),
        "uncommitted_changes": git.get("git_dirty") == "true",
        "weights": "random, after one step of training",
        "data": f"{prepared.source} (content sha256 `{prepared.data_sha256[:16]}`)" if prepared else "random pixels",
        "image_size": job.image_size,
        "hardware": hardware.describe(),
        "load": load,
        "threads": settings.compute.cpu_threads,
        "versions": {library: version(library) for library in LIBRARIES},
        "images": images,
        "few_images": few,
        "requests": REQUESTS,
        "batch": BATCH,
        "seconds": SECONDS,
        "minutes": (time.monotonic() - started) / 60,
        "models": found,
        "verdicts": verdicts(found),
    }


def register(job: Job) -> dict[str, Any]:
    """Train a network for a step, save and export it, make the file champion of a registered model; returns facts."""
    from mlflow import MlflowClient

    from stages.common.files import file_sha256
    from stages.inference.exported import Exported
    from stages.models import onnx_graph
    from stages.models.base import Examples, Reporter
    from stages.tracking.package import Package

    classifier, compute = job.start()
    # One step: of BatchNorm and biases as they start, exporters make another graph (MobileNetV3: four times as slow).
    batch = Examples(*(array[: classifier.settings.batch_size] for array in job.examples("train")))
    classifier.fit(batch, batch, epochs=1, compute=compute, reporter=Reporter.silent())
    framework = next(name for name in ("tensorflow", "torch") if name in sys.modules)
    native, file = _models(job)
    native.mkdir(parents=True)
    classifier.save(native)
    file.parent.mkdir(parents=True)
    onnx_graph.write(classifier.onnx_graph(), file)
    saved = json.loads((native / DESCRIPTION).read_text(encoding="utf-8"))
    paths.ONNX = file.parents[1]  # for this process, which ends here
    description = {
        "image_size": job.image_size,
        "weights_sha256": saved["weights_sha256"],
        "serves": "float32",
        "files": {"float32": {"file": file.name, "sha256": file_sha256(file)}},
    }
    metadata = {
        "source": "random",
        "data_sha256": "",
        "class_names": [f"class {index}" for index in range(job.num_classes)],
        "superclass_names": ["all"],
        "superclass_of_class": [0] * job.num_classes,
        "square": "crop",
        "temperature": 1.0,
        "conformal": {"90": 0.1, "95": 0.1},  # sets of a tenth of the classes, where none is likelier than another
        "ood_threshold": 0.5,
    }
    package = Package(Exported(job.model, description), np.asarray(job.examples("val").images[:1]), metadata, {})
    folder = Path(job.scratch) / "packages" / job.model
    package.save(folder)
    client = MlflowClient(_environment(job)["MLFLOW_TRACKING_URI"])
    client.create_registered_model(job.model)
    tags = {key: package.metadata[key] for key in ("model", "source", "weights_sha256", "onnx_sha256")}
    number = client.create_model_version(job.model, folder.as_uri(), tags=tags).version
    client.set_registered_model_alias(job.model, "champion", number)
    return {
        "settings": job.settings,
        "framework": f"{framework} {version(framework)}",
        "num_parameters": classifier.num_parameters,
        "onnx_bytes": file.stat().st_size,
        "onnx_sha256": package.exported.sha256,
    }


def _models(job: Job) -> tuple[Path, Path]:
    """What the framework loads, a folder, and what OpenVINO loads, an ONNX file."""
    return Path(job.scratch) / "native" / job.model, Path(job.scratch) / "onnx" / job.model / "model.onnx"


def _environment(job: Job) -> dict[str, str]:
    return os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{job.scratch}/mlflow.db", "MODEL_NAME": ""}


def _write_images(job: Job, counts: Mapping[str, int]) -> None:
    """One batch as an array, and folders of so many PNG files, in which images repeat where the data has fewer."""
    images, folder = job.examples("train").images, Path(job.scratch)
    np.save(folder / "batch.npy", images[:BATCH])
    for name, count in counts.items():
        (folder / name).mkdir()
        for index in range(count):
            Image.fromarray(np.asarray(images[index % len(images)])).save(folder / name / f"{index:06}.png")


def _round(job: Job, port: int, number: int) -> dict[str, Any]:
    before = {runner: _forward(job, runner) for runner in RUNNERS}
    one: dict[str, Any] = {"http": _http(job, port), "files": _classify(job, "files"), "few": _classify(job, "few")}
    # Once more: a machine that becomes slower or faster meanwhile weighs on all alike.
    after = {runner: _forward(job, runner) for runner in reversed(RUNNERS)}
    for runner in RUNNERS:
        one[runner] = {key: mean((value, after[runner][key])) for key, value in before[runner].items()}
    shown = [f"{way} {one[way]['p50_ms']:.1f} ms" for way in (*RUNNERS, "http")]
    shown += [f"{way} {one[way]['images_per_second']:,.0f} images/s" for way in (*RUNNERS, "files")]
    print(f"round {number}, {job.model}: {', '.join(shown)}", flush=True)
    return one


def _forward(job: Job, runner: str) -> dict[str, float]:
    model = dict(zip(RUNNERS, _models(job), strict=True))[runner]
    arguments = (model, Path(job.scratch) / "batch.npy", job.compute["threads"], SECONDS, time.time())
    return run_program(f"{job.model}, {runner}", "free some", "stages.tools.bench.forward", *map(str, arguments))


@contextmanager
def _server(job: Job) -> Iterator[int]:
    """The port where the model is served; UserError where no server comes up."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = Path(job.scratch) / "server.log"
    command = [sys.executable, "-m", "gui.server", "--model", job.model, "--port", str(port)]
    with log.open("w") as stream:
        process = subprocess.Popen(command, env=_environment(job), stdout=stream, stderr=stream)
    try:
        end = time.monotonic() + PATIENCE
        while not _is_up(port):
            if process.poll() is not None or time.monotonic() > end:
                raise UserError(f"{job.model} is not served: {_last_words(log)}")
            time.sleep(0.2)
        yield port
    finally:
        process.terminate()
        process.wait()


def _is_up(port: int) -> bool:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False


def _http(job: Job, port: int) -> dict[str, float]:
    images, seconds = job.examples("val").images, []
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        for index in range(WARM_UP + REQUESTS):
            jpeg = io.BytesIO()
            Image.fromarray(np.asarray(images[index % len(images)])).save(jpeg, "JPEG")
            started = time.perf_counter()
            connection.request("POST", "/classify", jpeg.getvalue(), {"Content-Type": "image/jpeg"})
            response = connection.getresponse()
            answer = response.read()
            seconds.append(time.perf_counter() - started)
            if response.status != 200:
                raise UserError(f"{job.model} answers a JPEG with {response.status}: {answer[:300]!r}")
    p50, p95 = np.percentile(seconds[WARM_UP:], (50, 95)) * 1e3
    return {"p50_ms": float(p50), "p95_ms": float(p95)}


def _classify(job: Job, folder: str) -> dict[str, float]:
    """What the command line says of its speed, loading left out, and the most memory it held."""
    scratch = Path(job.scratch)
    log = scratch / "classify.log"
    command = [sys.executable, "-m", "gui.classify", str(scratch / folder), "--model", job.model]
    command += ["--csv", str(scratch / "classified.csv")]
    with log.open("w") as stream:
        process = subprocess.Popen(command, env=_environment(job), stderr=stream)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    speed = re.search(r"([\d.,]+) a second", log.read_text())
    if process.returncode or speed is None:
        raise UserError(f"{job.model} classifies no files: {_last_words(log)}")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {"images_per_second": float(speed[1].replace(",", "")), "memory_mb": usage.ru_maxrss / unit}


def _last_words(log: Path) -> str:
    return " ".join(log.read_text().split())[-300:]


if __name__ == "__main__":
    with one_line_errors("bench"):
        main()
