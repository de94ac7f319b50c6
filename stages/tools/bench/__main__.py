"""Training by this project against training by notebook: writes reports/benchmark.md and reports/benchmark.json."""

import argparse
import tempfile
import time
from importlib.metadata import version
from typing import Any

from stages.common import hardware, paths
from stages.common.errors import UserError, one_line_errors
from stages.common.files import write_json, write_text
from stages.data.dataset import Prepared
from stages.models import params
from stages.tools.bench.job import WORKERS, Job
from stages.tools.bench.report import headline, render
from stages.tools.bench.speed import LEAST, WARM_UP

ROUNDS = 3
SECONDS = 5.0  # to measure in each process, where a step does not take longer
MAX_STEPS = 200
LIMIT = 15 * 60  # seconds: no other round where it would end later, unless --rounds asks for so many
EPOCH_PATIENCE = 4 * 3600.0  # seconds
LIBRARIES = ("torch", "torchvision", "timm", "lightning", "tensorflow", "keras", "numpy", "pillow")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.tools.bench", description=__doc__)
    parser.add_argument(
        "--epochs", action="store_true", help="also the time to the notebook's one-epoch accuracy of the scratch ViT"
    )
    parser.add_argument(
        "--rounds",
        type=_at_least_one,
        metavar="N",
        help=f"measure each model so often, however long it takes (default: {ROUNDS}, or fewer within "
        f"{LIMIT // 60} minutes); more where the machine's speed swings",
    )
    options = parser.parse_args()
    benchmark = measure(params.read(), with_epochs=options.epochs, rounds=options.rounds)
    write_json(paths.REPORTS / "benchmark.json", benchmark)
    write_text(paths.REPORTS / "benchmark.md", render(benchmark))
    print(f"{headline(benchmark['models']).replace('**', '')}\n{paths.REPORTS / 'benchmark.md'}")


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number, 1 or more")
    return int(text)


def measure(
    settings: params.Params, *, with_epochs: bool, rounds: int | None = None, seconds: float = SECONDS
) -> dict[str, Any]:
    """All that reports/benchmark.json holds. Leaves no other file.

    rounds: None for ROUNDS, or as many of them as end within LIMIT.
    """
    started = time.monotonic()
    prepared = Prepared.open(paths.PREPARED) if paths.PREPARED.exists() else None
    paths.SCRATCH.mkdir(parents=True, exist_ok=True)
    # On the disk where checkpoints are written in earnest.
    with tempfile.TemporaryDirectory(prefix="bench-", dir=paths.SCRATCH.resolve()) as scratch:
        jobs = {name: Job.of(settings, name, prepared, scratch) for name in settings.models}
        epoch = _epoch(jobs, prepared) if with_epochs else None
        models = _rounds(jobs, rounds, seconds)
    return {
        "data": _describe(prepared),
        "hardware": hardware.describe(),
        "versions": {library: version(library) for library in LIBRARIES},
        "minutes": (time.monotonic() - started) / 60,
        "warm_up": WARM_UP,
        "workers": WORKERS,
        "checkpoint_minutes": settings.compute.checkpoint_minutes,
        "settings": {name: job.settings for name, job in jobs.items()},
        "models": models,
        "epoch": epoch,
    }


def _rounds(jobs: dict[str, Job], rounds: int | None, seconds: float) -> dict[str, Any]:
    models: dict[str, dict[str, list[dict[str, Any]]]] = {name: {"notebook": [], "ours": []} for name in jobs}
    started, longest = time.monotonic(), 0.0
    for number in range(1, (rounds or ROUNDS) + 1):
        round_started = time.monotonic()
        if rounds is None and number > 1 and round_started - started + longest > LIMIT:
            print(f"no round {number}: it would end after more than {LIMIT / 60:.0f} minutes", flush=True)
            break
        for name, job in jobs.items():
            done = models[name]
            done["notebook"].append(job.run("speed.notebook", seconds))
            # `fit` has to be told beforehand how long it should go on.
            pace = (done["ours"] or done["notebook"])[-1]["step_seconds"]
            steps = min(MAX_STEPS, max(LEAST, round(seconds / pace)))
            done["ours"].append(job.run("speed.ours", steps, seconds))
            speeds = [f"{done[way][-1]['images_per_second']:,.1f}" for way in ("ours", "notebook")]
            print(f"round {number}, {name}: {speeds[0]} images a second, the notebook way {speeds[1]}", flush=True)
        longest = max(longest, time.monotonic() - round_started)
    return models


def _epoch(jobs: dict[str, Job], prepared: Prepared | None) -> dict[str, Any]:
    name = next((name for name, job in jobs.items() if job.settings["classifier"] == "vit_scratch"), None)
    if name is None or prepared is None:
        missing = f"no prepared data set in {paths.PREPARED}: run `dvc repro prepare`"
        raise UserError(missing if name else f"--epochs trains a vit_scratch, and {paths.PARAMS} has none")
    notebook = jobs[name].run("epoch.notebook", patience=EPOCH_PATIENCE)
    ours = jobs[name].run("epoch.ours", notebook["top1"], patience=EPOCH_PATIENCE)
    return {"model": name, "notebook": notebook, "ours": ours}


def _describe(prepared: Prepared | None) -> str:
    if prepared is None:
        return "random pictures, shaped like those of CIFAR-100: none were prepared (speed does not depend on them)"
    counts = prepared.description["counts"]
    return f"{prepared.source}, {counts['train']:,} training pictures, content sha256 `{prepared.data_sha256[:16]}`"


if __name__ == "__main__":
    with one_line_errors("bench"):
        main()
