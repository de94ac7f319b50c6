"""Runs rebuilt from DVC's outputs where the tracking store in use has none."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mlflow import MlflowClient

from stages.common.errors import UserError
from stages.tracking.runs import (
    PARAMS,
    TRAINING_ID,
    WEIGHTS_SHA256,
    DatasetUsed,
    RunDescription,
    curves,
    find_runs,
    from_iso,
    log_metrics,
)
from stages.tracking.store import Store

RECORD = "run.json"
HISTORY = "history.csv"
STEPS = "steps.csv"
LEARNING = "learning.csv"
REPLAYED = "replayed"  # tag


@dataclass(frozen=True)
class TrainingRecord:
    """A training that is over, as `train` wrote it down.

    ended: milliseconds since 1970, UTC.
    history, steps, learning: see runs.curves.
    """

    description: RunDescription
    ended: int
    weights_sha256: str
    history: list[dict[str, float]]
    steps: list[dict[str, float]]
    learning: list[dict[str, float]]

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """Read run.json, history.csv, steps.csv, learning.csv and params.yaml; UserError where one of the first two is
        missing, or any is damaged."""
        folder = Path(folder)
        try:
            record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            file = folder / PARAMS  # neither this nor STEPS and LEARNING are there of trainings of former versions
            description = RunDescription(
                name=record["model"],
                params=record["params"],
                tags={**record["tags"], WEIGHTS_SHA256: record[WEIGHTS_SHA256]},
                started=from_iso(record["started"]),
                dataset=DatasetUsed(**record["dataset"]) if record.get("dataset") else None,
                training_id=record[TRAINING_ID],
                files={PARAMS: file.read_text(encoding="utf-8")} if file.is_file() else {},
            )
            ended, weights_sha256 = from_iso(record["ended"]), record[WEIGHTS_SHA256]
            steps, learning = (_rows(at) if (at := folder / name).is_file() else [] for name in (STEPS, LEARNING))
            return cls(description, ended, weights_sha256, _rows(folder / HISTORY), steps, learning)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder} holds no record of a training ({error!r}): train the model again") from error


def _rows(file: Path) -> list[dict[str, float]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(lines)]


def ensure_run(client: MlflowClient, store: Store, experiment: str, training: TrainingRecord) -> str:
    """The id of the training's run in `experiment` of this store; rebuilt if there is none that is complete.

    A rebuilt run carries the original times and the tag `replayed`. Runs that the training began and could not finish
    are deleted: what they hold is in the rebuilt one.
    """
    experiment_id, described = store.experiment(client, experiment), training.description
    tags = {TRAINING_ID: described.training_id, WEIGHTS_SHA256: training.weights_sha256}
    for run_id in find_runs(client, experiment_id, tags, "FINISHED"):
        there = {file.path for file in client.list_artifacts(run_id)}
        for name in described.files.keys() - there:
            client.log_text(run_id, described.files[name], name)
        return run_id
    for run_id in find_runs(client, experiment_id, {TRAINING_ID: described.training_id}):
        client.delete_run(run_id)
    run_id = described.create(client, experiment_id)
    log_metrics(client, run_id, curves(training.history, training.steps, training.learning, described.started))
    client.set_tag(run_id, REPLAYED, "true")
    client.set_terminated(run_id, "FINISHED", end_time=training.ended)
    return run_id
