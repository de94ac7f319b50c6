"""DVC experiments: what `dvc exp show` knows of them, and the queue that trains them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from stages.common import paths
from stages.common.errors import UserError

DVC = (sys.executable, "-m", "dvc")


def read(prefix: str, commit: str) -> list[dict[str, Any]]:
    """The experiments PREFIX, PREFIX-1, PREFIX-a-2 ... under a commit, by length of name and name.

    Keys: name; rev; state (success, failed, running or queued); params: dotted paths of params.yaml to values, as text,
    so that 1, 1.0 and true differ; metrics: by model what reports/metrics holds, none unless it ended well.
    """
    found = []
    shown = json.loads(output(*DVC, "exp", "show", "--json", "--rev", commit))
    for entry in (entry for baseline in shown for entry in baseline.get("experiments") or ()):
        name, last = entry["name"] or "", entry["revs"][0]
        if name != prefix and not name.startswith(f"{prefix}-"):
            continue
        data = last.get("data") or {}
        # A task that was removed from the queue has no executor any more.
        state = (entry.get("executor") or {}).get("state") or ("failed" if last.get("error") else "success")
        # A failed one shows metrics, too: those that stood in the workspace when it was queued.
        files = data.get("metrics", {}) if state == "success" else {}
        metrics = {file.rpartition("/")[2].removesuffix(".json"): shown.get("data") for file, shown in files.items()}
        params = pd.json_normalize(data.get("params", {}).get(str(paths.PARAMS), {}).get("data") or {})
        texts = {key: json.dumps(params[key].tolist()[0]).strip('"') for key in params}
        found.append({"name": name, "rev": last["rev"], "state": state, "params": texts, "metrics": metrics})
    return sorted(found, key=lambda experiment: (len(experiment["name"]), experiment["name"]))


def trainings(found: dict[str, Any], model: str) -> list[dict[str, Any]]:
    """The trainings of a model in an experiment that ended well, one for each seed.

    val_top1, test_top1 (shares), and all of run.json, unless DVC's cache does not hold that any more.
    """
    top1 = {split: found["metrics"][model]["seeds"][split]["top1"] for split in ("val", "test")}
    return [
        {f"{split}_top1": top1[split][seed] for split in top1} | _run(found["rev"], paths.RUNS / model / seed)
        for seed in top1["val"]
    ]


def _run(rev: str, folder: Path) -> dict[str, Any]:
    from dvc import api
    from dvc.exceptions import DvcException

    try:
        return json.loads(api.read((folder / "run.json").as_posix(), rev=rev))
    except (DvcException, OSError, ValueError):
        return {}


def run_queue(jobs: int, again: str) -> None:
    """Train all that is queued, `jobs` at a time, and show the logs. again: the command that waits once more."""
    print(f"Ctrl-C leaves the experiments running; `{again}` waits for them again", flush=True)
    subprocess.run([*DVC, "exp", "run", "--run-all", "--jobs", str(jobs)])  # what failed is seen in `read`


def output(*command: str) -> str:
    """What a command prints; UserError where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"`{' '.join(command)}` failed: {' '.join(done.stderr.split())[-300:]}")
    return done.stdout
