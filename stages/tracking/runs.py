"""The MLflow run of a training, live while it trains. DVC's outputs are the truth: a run may fail, training goes on."""

import json
import math
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from stages.tracking.store import Store, quick_answers

PARAMS = "params.yaml"  # artifact: the file as the training found it
TRAINING_ID = "training_id"  # tag: ties a run, live or replayed, to the training it shows
WEIGHTS_SHA256 = "weights_sha256"  # tag: of the weights the training ended with

PATIENCE_LOCAL = 15.0  # seconds to wait at the end of a training for what has not been written yet
PATIENCE_REMOTE = 5.0
WRITE_EVERY = 3.0  # seconds: a transaction for each step would take the training's processor time

Status = Literal["FINISHED", "FAILED", "KILLED"]
Rows = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class DatasetUsed:
    """The data a model was trained on.

    name: of the source, e.g. cifar100.
    sha256: content hash of the prepared set.
    counts: images per split.
    source: where it came from, for people: a URL or a path.
    """

    name: str
    sha256: str
    counts: dict[str, int]
    source: str = ""

    def as_input(self) -> DatasetInput:
        """As MLflow's run pages show it; nothing of the data itself is copied."""
        dataset = Dataset(
            name=self.name,
            digest=self.sha256[:36],  # MLflow keeps no more
            source_type="http" if urlsplit(self.source).scheme in ("http", "https") else "local",
            source=json.dumps({"url": self.source} if "://" in self.source else {"uri": self.source}),
            profile=json.dumps({"sha256": self.sha256, **self.counts}),
        )
        return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", "training")])


@dataclass(frozen=True)
class RunDescription:
    """What is known of a run when it starts.

    started: milliseconds since 1970, UTC.
    files: artifacts, small text files by name.
    """

    name: str
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    started: int = field(default_factory=lambda: now())
    dataset: DatasetUsed | None = None
    training_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    files: Mapping[str, str] = field(default_factory=dict)

    def create(self, client: MlflowClient, experiment_id: str) -> str:
        """Create the run in a store, open; returns its id."""
        tags = {**self.tags, TRAINING_ID: self.training_id}
        run = client.create_run(experiment_id, start_time=self.started, tags=tags, run_name=self.name)
        client.log_batch(run.info.run_id, params=[Param(key, str(value)) for key, value in self.params.items()])
        if self.dataset:
            client.log_inputs(run.info.run_id, [self.dataset.as_input()])
        for name, text in self.files.items():
            client.log_text(run.info.run_id, text, name)
        return run.info.run_id


def find_runs(client: MlflowClient, experiment_id: str, tags: Mapping[str, str], status: str = "") -> list[str]:
    """The ids of the runs of an experiment that have these tags, and this status if any is named."""
    conditions = [f"tags.{key} = '{value}'" for key, value in tags.items()]
    conditions += [f"attributes.status = '{status}'"] if status else []
    return [run.info.run_id for run in client.search_runs([experiment_id], " and ".join(conditions))]


def curves(history: Rows, steps: Rows, learning: Rows, started: int) -> list[Metric]:
    """The curves of a training, at the times when they were measured; those of single steps as `step_<name>`, those on
    few validation images as `learning_<name>`.

    history: one row per epoch: `epoch` from 1, `seconds` since the start, and the metrics. steps: the same of `step`s.
    learning: the same, by the number of `images` seen. started: milliseconds since 1970, UTC.
    """
    axes = ((history, "epoch", ""), (steps, "step", "step_"), (learning, "images", "learning_"))
    return [
        Metric(prefix + name, value, started + round(row["seconds"] * 1000), math.ceil(row[axis]))
        for rows, axis, prefix in axes
        for row in rows
        for name, value in row.items()
        if name not in (axis, "seconds")
    ]


def log_metrics(client: MlflowClient, run_id: str, metrics: Sequence[Metric]) -> None:
    """Log any number of metrics; those that are not finite are left out."""
    # MLflow stores infinity as 1.8e308, which flattens a chart.
    if finite := [metric for metric in metrics if math.isfinite(metric.value)]:
        client.log_batch(run_id, metrics=finite)


def to_iso(milliseconds: int) -> str:
    """Milliseconds since 1970 as ISO 8601 in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def from_iso(text: str) -> int:
    """ISO 8601 as milliseconds since 1970; UTC where no zone is given."""
    moment = datetime.fromisoformat(text)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


class TrainingRun:
    """A run that follows a training. A thread of its own talks to the store: no call here waits but `finish`.

    MLflow's own asynchronous logging is no help there: its threads keep the process from ending while a server hangs.
    Where tracking fails, or is too slow to be done a few seconds after the training, one line on stderr says so;
    `register` replays the run later.

        with TrainingRun.start(store, "cifar100", "vit_scratch", params=..., tags=..., dataset=...) as run:
            run.log_step(20, {"train_loss": 4.4})
            run.log_epoch(1, {"train_loss": 4.1, "val_top1": 0.1})
            run.finish(tags={"weights_sha256": ...})
        run.record()  # for run.json
    """

    def __init__(self, store: Store, experiment: str, description: RunDescription) -> None:
        self.store = store
        self.experiment = experiment
        self.description = description
        self.ended: int | None = None
        self._final_tags: dict[str, str] = {}
        self._status: Status = "FINISHED"
        self._run_id: str | None = None
        self._failed = False
        self._measured: SimpleQueue[Metric] = SimpleQueue()
        self._has_ended = threading.Event()
        self._thread: threading.Thread

    @classmethod
    def start(
        cls,
        store: Store,
        experiment: str,
        name: str,
        *,
        history: Rows = (),
        steps: Rows = (),
        learning: Rows = (),
        **described: Any,
    ) -> Self:
        """Begin a run called `name`; described: see RunDescription.

        training_id, started, history, steps, learning: of a training that was interrupted and is resumed: so is its
        run. The rows of the last three (see curves) that the run lacks are logged again.
        """
        run = cls(store, experiment, RunDescription(name, **described))
        before = curves(history, steps, learning, run.description.started)
        run._thread = threading.Thread(target=run._follow, args=(before,), name="tracking", daemon=True)
        run._thread.start()
        return run

    @property
    def run_id(self) -> str | None:
        """The run's id; None as long as the store has not answered, and for good where tracking failed."""
        return None if self._failed else self._run_id

    def log_epoch(self, epoch: float, metrics: Mapping[str, float]) -> None:
        """Metrics after an epoch, counted from 1, the last maybe a part of one, under their own names."""
        self._log(math.ceil(epoch), metrics)

    def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics after an optimizer step, counted from 1, as `step_<name>`."""
        self._log(step, {f"step_{name}": value for name, value in metrics.items()})

    def log_learning(self, images: int, metrics: Mapping[str, float]) -> None:
        """Metrics on few validation images after so many training images, as `learning_<name>`."""
        self._log(images, {f"learning_{name}": value for name, value in metrics.items()})

    def finish(self, status: Status = "FINISHED", tags: Mapping[str, str] | None = None) -> None:
        """End the run, once; tags: what is known only now, `weights_sha256` among it. Waits a few seconds at most."""
        if self.ended is not None:
            return
        self.ended = now()
        self._status = status
        self._final_tags = dict(tags or {})
        self._has_ended.set()
        patience = PATIENCE_REMOTE if self.store.is_remote else PATIENCE_LOCAL
        self._thread.join(patience)
        if self._thread.is_alive():
            self._fail(f"no answer within {patience:.0f} s")

    def record(self) -> dict[str, Any]:
        """What replay needs to build the run again, as JSON: the part of run.json that tracking looks after."""
        described = self.description
        return {
            "model": described.name,
            "training_id": described.training_id,
            "run_id": self.run_id,
            "tracking_uri": self.store.shown_uri,
            "experiment": self.experiment,
            "started": to_iso(described.started),
            "ended": to_iso(self.ended if self.ended is not None else now()),
            "params": dict(described.params),
            "tags": {**described.tags, **self._final_tags},
            "dataset": asdict(described.dataset) if described.dataset else None,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.finish("FINISHED" if kind is None else "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED")

    def _log(self, step: int, metrics: Mapping[str, float]) -> None:
        if not self._failed:
            moment = now()
            for name, value in metrics.items():
                self._measured.put(Metric(name, float(value), moment, step))

    def _follow(self, before: Sequence[Metric]) -> None:
        """What the thread does. before: what a training that is resumed has measured."""
        try:
            with quick_answers():
                client = self.store.client()
                experiment_id = self.store.experiment(client, self.experiment)
                begun = find_runs(client, experiment_id, {TRAINING_ID: self.description.training_id})
                self._run_id = run_id = begun[0] if begun else self.description.create(client, experiment_id)
                client.update_run(run_id, "RUNNING")
                log_metrics(client, run_id, self._missing(client, run_id, before))
                system = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=self.store.uri)
                system.start()
                while not self._has_ended.wait(WRITE_EVERY):
                    self._write(client, run_id)
                self._write(client, run_id)
                system.finish()
                client.log_batch(run_id, tags=[RunTag(key, str(value)) for key, value in self._final_tags.items()])
                client.set_terminated(run_id, self._status, end_time=self.ended)
        except Exception as error:
            # Whatever MLflow, its HTTP library or the database raise: none of it is worth a training.
            self._fail(" ".join(str(error).split())[:200] or type(error).__name__)

    def _write(self, client: MlflowClient, run_id: str) -> None:
        log_metrics(client, run_id, [self._measured.get() for _ in range(self._measured.qsize())])

    def _missing(self, client: MlflowClient, run_id: str, measured: Sequence[Metric]) -> list[Metric]:
        """What was measured before, and the run lacks."""
        known = {
            (name, metric.step)
            for name in {metric.key for metric in measured}
            for metric in client.get_metric_history(run_id, name)
        }
        return [metric for metric in measured if (metric.key, metric.step) not in known]

    def _fail(self, reason: str) -> None:
        if not self._failed:
            self._failed = True
            print(f"tracking failed, training goes on without it ({reason})", file=sys.stderr, flush=True)


def now() -> int:
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000
