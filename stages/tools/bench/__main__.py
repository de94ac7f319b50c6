"""Measures training against a baseline, and serving: benchmark, time_to_accuracy, serving (.json, .md) in reports/."""

import argparse
import os
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from stages.common import paths
from stages.common.errors import one_line_errors
from stages.common.files import json_sha256, read_json, write_json, write_text
from stages.data.dataset import Prepared
from stages.models import params
from stages.report import markdown
from stages.tools import provenance
from stages.tools.bench import report

# Each in files of its own: what is not measured stays as it was.
FILES = {"training": "benchmark", "accuracy": "time_to_accuracy", "serving": "serving"}
TEMPLATES = Path(__file__).parents[1] / "templates"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.tools.bench", description=__doc__)
    parser.add_argument("what", nargs="*", help=f"some of {', '.join(FILES)} (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="measure each so often; of accuracy: seeds (default: 3)")
    parser.add_argument("--steps", type=int, default=20, help="of training, in each round (default: 20)")
    parser.add_argument("--images", type=int, default=10_000, help="files to classify (default: 10,000)")
    parser.add_argument("--render", action="store_true", help="write the texts from the JSON files, measure nothing")
    options = parser.parse_args()
    if not FILES.keys() >= set(options.what) or min(options.rounds, options.steps, options.images) < 1:
        parser.error(f"choose from {', '.join(FILES)}; --rounds, --steps and --images take whole numbers from 1")
    sizes = {"training": [options.steps], "accuracy": [], "serving": [options.images]}
    for what in options.what or FILES:
        file = paths.REPORTS / f"{FILES[what]}.json"
        if options.render and not options.what and not file.exists():
            continue
        if not options.render:
            write_json(file, measure(what, options.rounds, *sizes[what]))
        found = read_json(file, f"run `python -m stages.tools.bench {what}`")
        text = markdown.render(TEMPLATES / f"{what}.md.j2", **found, figures=getattr(report, what)(found))
        write_text(file.with_suffix(".md"), text)
        print(f"{text.splitlines()[2]}\n{file.with_suffix('.md')}")


def measure(what: str, rounds: int, *size: int) -> dict[str, Any]:
    """All that a JSON file holds. Leaves no other file. size: steps of training, or files to classify."""
    settings, prepared, started = params.read(), Prepared.open(paths.PREPARED), time.monotonic()
    # Now: files may change meanwhile.
    origin = provenance.here(json_sha256(settings.model_dump()), prepared.data_sha256)
    load = os.getloadavg()[0]
    paths.SCRATCH.mkdir(parents=True, exist_ok=True)
    # On the disk where a training writes in earnest.
    with tempfile.TemporaryDirectory(prefix="bench-", dir=paths.SCRATCH.resolve()) as scratch:
        module = import_module(f"stages.tools.bench.{what}")
        measured = module.measure(settings, Path(scratch), rounds, *size)
    return origin | {
        "data": f"{prepared.source} (content sha256 `{prepared.data_sha256[:16]}`)",
        "load": load,
        "threads": settings.compute.cpu_threads,
        "minutes": (time.monotonic() - started) / 60,
        **measured,
    }


if __name__ == "__main__":
    with one_line_errors("bench"):
        main()
