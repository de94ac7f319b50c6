"""What answers cost beyond the model's own forward pass: over HTTP, and from files by the command line.

Networks with random weights, packaged and registered in a store of their own, asked through the doors that users take.
Writes reports/serving.md and reports/serving.json.
"""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import requests
from PIL import Image

from stages import classifiers, machine, outputs, params, paths
from stages.bench.job import Job
from stages.datasets.prepared import Prepared
from stages.errors import UserError, one_line_errors

ROUNDS = 3
PICTURES = 10_000  # files for the command line
FEW = 10  # times fewer of them, to see whether memory grows
REQUESTS = 100  # in each round, of one picture each
WARM_UP = 5  # of these, and forward passes, that are not measured
SECONDS = 5.0  # to measure forward passes
FORWARD_BATCH = 64  # pictures, as many as the command line gives the model at once
PATIENCE = 300.0  # seconds
ALIAS = "champion"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.bench.serving", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"(default: {ROUNDS})")
    parser.add_argument("--pictures", type=int, default=PICTURES, help=f"files to classify (default: {PICTURES:,})")
    parser.add_argument("models", nargs="*", help="of params.yaml (default: all)")
    arguments = parser.parse_args()
    found = measure(params.read(), arguments.models, rounds=arguments.rounds, count=arguments.pictures)
    outputs.write_json(paths.REPORTS / "serving.json", found)
    outputs.write_text(paths.REPORTS / "serving.md", render(found))
    print(paths.REPORTS / "serving.md")


def measure(settings: params.Params, models: Sequence[str], *, rounds: int, count: int) -> dict[str, Any]:
    """All that reports/serving.json holds. Leaves no other file."""
    started = time.monotonic()
    prepared = Prepared.open(paths.PREPARED) if paths.PREPARED.exists() else None
    paths.SCRATCH.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bench-", dir=paths.SCRATCH.resolve()) as scratch:
        jobs = {name: Job.of(settings, name, prepared, scratch) for name in models or settings.models}
        folder = Path(scratch)
        _write_pictures(next(iter(jobs.values())), folder, count)
        for name, job in jobs.items():
            job.run("serving.package")
            _register(folder, name)
            found[name] = _rounds(name, job, folder, rounds)
    return {
        "hardware": machine.describe(),
        "pictures": count,
        "few_pictures": max(1, count // FEW),
        "requests": REQUESTS,
        "minutes": (time.monotonic() - started) / 60,
        "models": found,
    }


def _rounds(name: str, job: Job, folder: Path, rounds: int) -> list[dict[str, float]]:
    found = []
    with _server(folder, name) as uri:
        for number in range(1, rounds + 1):
            before = job.run("serving.forward", SECONDS)
            one = {"http_ms": _http_ms(uri, job.image_size)}
            one |= {f"files_{key}": value for key, value in _classify(folder, name, "all").items()}
            after = job.run("serving.forward", SECONDS)
            # A machine that slows down or speeds up meanwhile weighs on both.
            one |= {key: (before[key] + after[key]) / 2 for key in before}
            one["few_memory_mb"] = _classify(folder, name, "few")["memory_mb"]
            found.append(one)
            print(
                f"round {number}, {name}: one picture {one['http_ms']:.1f} ms over HTTP, {one['forward_ms']:.1f} ms "
                f"bare; {one['files_images_per_second']:,.0f} files a second, "
                f"{one['forward_images_per_second']:,.0f} images bare",
                flush=True,
            )
    return found


def package(job: Job) -> dict[str, Any]:
    """Write the packaged model into the folder of its name in scratch."""
    from stages.tracking.package import Package

    classifier, _ = job.start()
    saved = Path(job.scratch) / f"saved-{job.model}"
    saved.mkdir()
    classifier.save(saved)
    about = {
        "model": job.model,
        "class_names": [f"class {index}" for index in range(job.num_classes)],
        "superclass_names": ["all"],
        "superclass_of_class": [0] * job.num_classes,
        "image_size": job.image_size,
        "temperature": 1.0,
    }
    example = np.asarray(job.examples("val").images[:1])
    Package(saved, Path(classifiers.__file__).parent, example, about, {}).save(Path(job.scratch) / job.model)
    return {}


def forward(job: Job, seconds: float) -> dict[str, float]:
    """The bare model: milliseconds for one raw picture (median), and images a second in batches of raw pictures."""
    # As the doors load it, not as it is set up to train: with the framework's own choice of threads.
    classifier = classifiers.load(Path(job.scratch) / f"saved-{job.model}")
    images = np.array(job.examples("val").images[:FORWARD_BATCH])
    one = _durations(lambda: classifier.logits(images[:1]), seconds)
    batches = _durations(lambda: classifier.logits(images), seconds)
    return {"forward_ms": median(one) * 1e3, "forward_images_per_second": len(images) * len(batches) / sum(batches)}


def _durations(work: Any, seconds: float) -> list[float]:
    for _ in range(WARM_UP):
        work()
    found: list[float] = []
    while sum(found) < seconds:
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return found


def _write_pictures(job: Job, folder: Path, count: int) -> None:
    """PNG files in the folder `all`, and the first of them in `few`."""
    images = job.examples("train").images
    for name, number in (("all", count), ("few", max(1, count // FEW))):
        (folder / name).mkdir()
        for index in range(number):
            Image.fromarray(np.asarray(images[index % len(images)])).save(folder / name / f"{index:06}.png")


def _register(folder: Path, name: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=_environment(folder)["MLFLOW_TRACKING_URI"])
    client.create_registered_model(name)
    version = client.create_model_version(name, (folder / name).as_uri())
    client.set_registered_model_alias(name, ALIAS, version.version)


def _environment(folder: Path) -> dict[str, str]:
    return os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "MODEL_NAME": ""}


@contextmanager
def _server(folder: Path, name: str) -> Iterator[str]:
    """The URI to ask; UserError where no server comes up."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gui.serve", "--model", name, "--port", str(port)]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=_environment(folder), stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + PATIENCE
        while not _answers(f"http://127.0.0.1:{port}/ping"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise UserError(f"{name} is not served:\n{(folder / 'server.log').read_text()}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        process.terminate()
        process.wait()


def _answers(uri: str) -> bool:
    try:
        return requests.get(uri, timeout=2).ok
    except requests.RequestException:
        return False


def _http_ms(uri: str, size: int) -> float:
    pictures = np.random.default_rng(0).integers(0, 256, (1, size, size, 3))
    body = json.dumps({"inputs": pictures.tolist(), "params": {"top_k": 5}})
    headers = {"Content-Type": "application/json"}
    found = []
    with requests.Session() as session:
        for _ in range(WARM_UP + REQUESTS):
            started = time.perf_counter()
            session.post(uri, data=body, headers=headers, timeout=PATIENCE).raise_for_status()
            found.append(time.perf_counter() - started)
    return median(found[WARM_UP:]) * 1e3


def _classify(folder: Path, name: str, pictures: str) -> dict[str, float]:
    """What the command line says of its speed, loading left out, and the most memory it held."""
    said = folder / "classify.log"
    command = [sys.executable, "-m", "gui.classify", str(folder / pictures), "--model", name]
    with said.open("w") as log:
        process = subprocess.Popen(
            [*command, "--csv", str(folder / "answers.csv")], env=_environment(folder), stderr=log
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    speed = re.search(r"([\d.,]+) a second", said.read_text())
    if process.returncode or speed is None:
        raise UserError(f"{name} classified no files:\n{said.read_text()}")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {"images_per_second": float(speed[1].replace(",", "")), "memory_mb": usage.ru_maxrss / unit}


def render(found: Mapping[str, Any]) -> str:
    """The report in Markdown, of what reports/serving.json holds."""
    hardware = found["hardware"]
    rounds = len(next(iter(found["models"].values())))
    head = ["model", "forward, p50", "HTTP, p50", "**beyond the forward**", "forward, images/s", "files/s"]
    head += ["**files / forward**", f"memory, {found['few_pictures']:,} files", f"{found['pictures']:,} files"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for name, each in found["models"].items():
        beyond = [one["http_ms"] - one["forward_ms"] for one in each]
        shares = [one["files_images_per_second"] / one["forward_images_per_second"] for one in each]
        lines.append(
            [
                name,
                f"{_median(each, 'forward_ms'):.1f} ms",
                f"{_median(each, 'http_ms'):.1f} ms",
                f"**{median(beyond):.1f} ms** ({min(beyond):.1f} to {max(beyond):.1f})",
                f"{_median(each, 'forward_images_per_second'):,.0f}",
                f"{_median(each, 'files_images_per_second'):,.0f}",
                f"**{median(shares):.0%}** ({min(shares):.0%} to {max(shares):.0%})",
                f"{_median(each, 'few_memory_mb'):,.0f} MiB",
                f"{_median(each, 'files_memory_mb'):,.0f} MiB",
            ]
        )
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    measured = (
        f"Medians of {rounds} rounds, in brackets the lowest and the highest. {hardware['cpu']}, {hardware['cores']} "
        f"cores, {hardware['memory_gb']} GiB; {found['minutes']:.1f} minutes in all. Random weights: a network takes "
        "no longer with one number than with another."
    )
    method = (
        f"HTTP: one picture of the trained size as JSON, five labelled answers back, {found['requests']} requests a "
        f"round to `make serve`, one after the other. Files: {found['pictures']:,} PNG pictures of that size through "
        "`python -m gui.classify --csv`, reading and writing included, loading the model not. Forward: raw pictures to "
        f"logits in float32 in processes of its own before and after, one by one and in batches of {FORWARD_BATCH}. "
        "Memory: the most that the command line held. Meant to hold: HTTP within 1.5 times the forward and 10 ms, "
        "files at 90 % of it."
    )
    return "\n\n".join(["# Answers, against the model's own forward pass", table, measured, method]) + "\n"


def _median(rounds: Sequence[Mapping[str, float]], key: str) -> float:
    return median(one[key] for one in rounds)


if __name__ == "__main__":
    with one_line_errors("bench"):
        main()
