"""What `make sweep` does once its experiments are queued: wait for them, then write their table and picture."""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import matplotlib

from stages.common import paths
from stages.common.errors import UserError, one_line_errors
from stages.common.files import write_text
from stages.models import params
from stages.report.plots import style
from stages.report.plots.sweep import sweep as draw
from stages.tools import experiments
from stages.tools.experiments import Experiment, Queue

matplotlib.use("Agg")

FOLDER = Path("sweep")  # git-ignored
TABLE, PICTURE = FOLDER / "sweep.md", FOLDER / "sweep.png"
PATIENCE = 120.0  # seconds without a worker: one needs several to start, on a busy machine many


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a key of models in params.yaml")
    parser.add_argument("name", help="of the sweep: its experiments are NAME-1, NAME-2 ...")
    parser.add_argument("--rev", default="HEAD", help="the commit that was checked out when it was queued")
    arguments = parser.parse_args()
    model, name = arguments.model, arguments.name
    params.read().model(model)
    # By number: hours later, when the experiments are done, HEAD may be another commit.
    commit = command_output("git", "rev-parse", "--verify", arguments.rev).strip()
    again = f"python -m stages.tools.sweep {model} {name} --rev {commit[:10]}"
    for former in (TABLE, PICTURE):
        former.unlink(missing_ok=True)
    try:
        wait(name, again)
    except KeyboardInterrupt:
        _leave(
            f"the experiments go on in the background: `{again}` waits for them again, `dvc queue stop --kill` and "
            "`dvc queue remove --queued` end them"
        )
    found = experiments.parse(json.loads(dvc("exp", "show", "--json", "--rev", commit)), name, model)
    report(found, name, model, commit)


def wait(name: str, again: str) -> None:
    """Return when no experiment of the sweep runs or waits; UserError where nobody works on them."""
    started = attended = time.monotonic()
    said, seen_done = "", 0
    while seen_done < 2:
        queue = Queue.parse(dvc("queue", "status"), name)
        # Twice: DVC reads one list after the other, and misses a task that goes from one to the next meanwhile.
        seen_done = seen_done + 1 if queue.is_done else 0
        if not seen_done and str(queue) != said:
            said = str(queue)
            print(f"{name}: {said}", flush=True)
        now = time.monotonic()
        attended = now if queue.workers or seen_done else attended
        if now - attended > PATIENCE:
            raise UserError(f"{name}: {queue}, but no worker: `dvc queue start`, then `{again}`")
        # Asking costs a second of a core: at first often, for sweeps of hours once a minute.
        time.sleep(1.0 if seen_done else min(60.0, max(5.0, (now - started) / 10)))


def report(found: Sequence[Experiment], name: str, model: str, commit: str) -> None:
    """Write table and picture of what ended well; UserError where nothing did, or not all."""
    failed = [experiment.name for experiment in found if experiment.state == "failed"]
    some_failed = (
        f"{len(failed)} of {len(found)} experiments failed: {', '.join(failed)}; `dvc queue logs NAME` says why"
    )
    if not any(experiment.val_top1 is not None for experiment in found):
        nothing = f"no experiment {name} under commit {commit[:10]}: `dvc exp list --all` names those there are, --rev"
        raise UserError(some_failed if failed else f"{nothing} takes another commit")
    parameters = experiments.tried(found)
    if not parameters:
        raise UserError(f"all experiments of {name} have the same parameters: give SWEEP two values of one at least")
    settings = experiments.settings(found, parameters)
    values = {
        experiments.short(parameter, model): [setting.values[index] for setting in settings]
        for index, parameter in enumerate(parameters)
    }
    FOLDER.mkdir(exist_ok=True)
    style.save(draw(values, [setting.val_top1 for setting in settings], model=model), PICTURE)
    minutes = {experiment.name: _minutes(experiment, model) for experiment in found}
    text = experiments.render(found, parameters, minutes, sweep=name, model=model, picture=PICTURE.name)
    write_text(TABLE, text)
    print(text.split("\n\n", 2)[1].replace("**", ""))
    print(f"{len(found) - len(failed)} of {len(found)} experiments: {TABLE}, {PICTURE}")
    if failed:
        raise UserError(some_failed)


def _minutes(experiment: Experiment, model: str) -> float | None:
    """How long it trained; None where DVC's cache does not hold that any more."""
    if experiment.val_top1 is None:
        return None
    from dvc import api
    from dvc.exceptions import DvcException

    file = (paths.RUNS / model / "run.json").as_posix()
    try:
        return float(json.loads(api.read(file, rev=experiment.rev))["seconds"]) / 60
    except (DvcException, OSError, ValueError, KeyError):
        return None


def dvc(*arguments: str) -> str:
    """What a command of DVC prints; UserError where it fails."""
    return command_output(sys.executable, "-m", "dvc", *arguments)


def command_output(*command: str) -> str:
    """What a command prints; UserError where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"`{' '.join(command)}` failed: {' '.join(done.stderr.split())[-300:]}")
    return done.stdout


def _leave(message: str) -> NoReturn:
    print(f"\nsweep: {message}", file=sys.stderr)
    sys.exit(130)


if __name__ == "__main__":
    with one_line_errors("sweep"):
        main()
