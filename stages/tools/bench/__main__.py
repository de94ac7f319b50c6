"""Measures training speed against a baseline, and serving: reports/benchmark.{json,md}, reports/serving.{json,md}."""

import argparse
import os
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stages.common import hardware, paths
from stages.common.errors import one_line_errors
from stages.common.files import read_json, write_json, write_text
from stages.data.dataset import Prepared
from stages.models import params
from stages.tools.bench import report, serving, training
from stages.tools.markdown import render
from stages.tracking.lineage import git_tags

FILES = {"training": paths.REPORTS / "benchmark.json", "serving": paths.REPORTS / "serving.json"}
LIBRARIES = ("torch", "torchvision", "timm", "lightning", "keras", "tensorflow", "openvino", "mlflow", "numpy")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.tools.bench", description=__doc__)
    parser.add_argument("what", nargs="*", help="training, serving (default: both)")
    parser.add_argument("--rounds", type=int, default=3, help="measure each so often (default: 3)")
    parser.add_argument("--steps", type=int, default=20, help="of training, in each round (default: 20)")
    parser.add_argument("--images", type=int, default=10_000, help="files to classify (default: 10,000)")
    parser.add_argument("--render", action="store_true", help="write the texts from the JSON files, measure nothing")
    options = parser.parse_args()
    if not FILES.keys() >= set(options.what) or min(options.rounds, options.steps, options.images) < 1:
        parser.error(f"choose from {', '.join(FILES)}; --rounds, --steps and --images take whole numbers from 1")
    for what in options.what or FILES:
        file, text_file = FILES[what], FILES[what].with_suffix(".md")
        if not options.render:
            write_json(
                file, measure(what, options.rounds, {"training": options.steps, "serving": options.images}[what])
            )
        found = read_json(file, f"run `python -m stages.tools.bench {what}`")
        text = render(what, **found, figures=getattr(report, what)(found["models"]))
        write_text(text_file, text)
        print(f"{text.splitlines()[2]}\n{text_file}")


def measure(what: str, rounds: int, size: int) -> dict[str, Any]:
    """All that a JSON file holds. Leaves no other file. size: steps of training, or files to classify."""
    settings, prepared, started = params.read(), Prepared.open(paths.PREPARED), time.monotonic()
    git, load = git_tags(ignoring=[paths.REPORTS]), os.getloadavg()[0]  # now: files may change meanwhile
    paths.SCRATCH.mkdir(parents=True, exist_ok=True)
    # On the disk where a training writes in earnest.
    with tempfile.TemporaryDirectory(prefix="bench-", dir=paths.SCRATCH.resolve()) as scratch:
        measured = {"training": training, "serving": serving}[what].measure(settings, Path(scratch), rounds, size)
    return {
        "commit": git.get("git_commit"),
        "uncommitted_changes": git.get("git_dirty") == "true",
        "data": f"{prepared.source} (content sha256 `{prepared.data_sha256[:16]}`)",
        "hardware": hardware.describe(),
        "load": load,
        "threads": settings.compute.cpu_threads,
        "versions": {library: version(library) for library in LIBRARIES},
        "minutes": (time.monotonic() - started) / 60,
        **measured,
    }


if __name__ == "__main__":
    with one_line_errors("bench"):
        main()
