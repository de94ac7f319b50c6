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
from queue import Empty, SimpleQueue
from types import TracebackType
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
SYSTEM_METRICS = "system/"  # where MLflow's pages look for them
MAX_METRICS = 1000  # per call, MLflow's limit
MAX_PARAMS = 100

Status = Literal["FINISHED", "FAILED", "KILLED"]


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
    started: int
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    dataset: DatasetUsed | None = None
    training_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    files: Mapping[str, str] = field(default_factory=dict)

    def open(self, client: MlflowClient, experiment_id: str) -> str:
        """The run of this very training, where one was begun already, set to running again; else a new one."""
        begun = client.search_runs([experiment_id], f"tags.{TRAINING_ID} = '{self.training_id}'")
        if not begun:
            return self.create(client, experiment_id)
        client.update_run(begun[0].info.run_id, "RUNNING")
        return begun[0].info.run_id

    def create(self, client: MlflowClient, experiment_id: str) -> str:
        """Create the run in a store, open; returns its id."""
        tags = {**self.tags, TRAINING_ID: self.training_id}
        run = client.create_run(experiment_id, start_time=self.started, tags=tags, run_name=self.name)
        params = [Param(key, str(value)) for key, value in self.params.items()]
        for start in range(0, len(params), MAX_PARAMS):
            client.log_batch(run.info.run_id, params=params[start : start + MAX_PARAMS])
        if self.dataset:
            client.log_inputs(run.info.run_id, [self.dataset.as_input()])
        for name, text in self.files.items():
            client.log_text(run.info.run_id, text, name)
        return run.info.run_id


def epoch_metrics(history: Sequence[Mapping[str, float]], started: int) -> list[Metric]:
    """The curves, at the times when they were measured.

    history: one row per epoch: `epoch` from 1, `seconds` since the start, and the metrics.
    started: milliseconds since 1970, UTC.
    """
    return _curves(history, "epoch", started)


def step_metrics(steps: Sequence[Mapping[str, float]], started: int) -> list[Metric]:
    """The same of single steps, as `step_<name>`: the steps of one chart must compare. steps: `step` for `epoch`."""
    return _curves(steps, "step", started, "step_")


def _curves(rows: Sequence[Mapping[str, float]], axis: str, started: int, prefix: str = "") -> list[Metric]:
    return [
        Metric(prefix + name, value, started + round(row["seconds"] * 1000), int(row[axis]))
        for row in rows
        for name, value in row.items()
        if name not in (axis, "seconds")
    ]


def log_metrics(client: MlflowClient, run_id: str, metrics: Sequence[Metric]) -> None:
    """Log any number of metrics; those that are not finite are left out."""
    # MLflow stores infinity as 1.8e308, which flattens a chart.
    metrics = [metric for metric in metrics if math.isfinite(metric.value)]
    for start in range(0, len(metrics), MAX_METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + MAX_METRICS])


def to_iso(milliseconds: int) -> str:
    """Milliseconds since 1970 as ISO 8601 in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def from_iso(text: str) -> int:
    """ISO 8601 as milliseconds since 1970; UTC where no zone is given."""
    moment = datetime.fromisoformat(text)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


class TrainingRun:
    """A run that follows a training. A thread of its own talks to the store: no call here waits but `finish`.

    Where tracking fails, or is too slow to be done a few seconds after the training, one line on stderr says so;
    `register` replays the run later.

        with TrainingRun.start(store, "cifar100", "vit_scratch", params=..., tags=..., dataset=...) as run:
            run.log_step(20, {"train_loss": 4.4})
            run.log_epoch(1, {"train_loss": 4.1, "val_top1": 0.1})
            run.finish(tags={"weights_sha256": ...})
        run.record()  # for run.json
    """

    def __init__(
        self,
        store: Store,
        experiment: str,
        description: RunDescription,
        history: Sequence[Mapping[str, float]] = (),
        steps: Sequence[Mapping[str, float]] = (),
    ) -> None:
        self.store = store
        self.experiment = experiment
        self.description = description
        self.history = [dict(row) for row in history]
        self.steps = [dict(row) for row in steps]
        self.ended: int | None = None
        self._final_tags: dict[str, str] = {}
        self._status: Status = "FINISHED"
        self._run_id: str | None = None
        self._failed = False
        self._waiting: SimpleQueue[list[Metric] | None] = SimpleQueue()  # None: the training has ended
        self._has_ended = False
        self._thread = threading.Thread(target=self._follow, name="tracking", daemon=True)

    @classmethod
    def start(
        cls,
        store: Store,
        experiment: str,
        name: str,
        *,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        dataset: DatasetUsed | None = None,
        files: Mapping[str, str] | None = None,
        training_id: str | None = None,
        started: int | None = None,
        history: Sequence[Mapping[str, float]] = (),
        steps: Sequence[Mapping[str, float]] = (),
    ) -> Self:
        """Begin a run called `name`; params are flat, with values of any type; files: see RunDescription.

        training_id, started, history, steps: of a training that was broken off and goes on: its run goes on too. The
        rows of history and steps (see epoch_metrics, step_metrics) that the run lacks are logged again.
        """
        description = RunDescription(
            name,
            now() if started is None else started,
            dict(params),
            dict(tags),
            dataset,
            training_id or uuid.uuid4().hex,
            dict(files or {}),
        )
        run = cls(store, experiment, description, history, steps)
        run._thread.start()
        return run

    @property
    def run_id(self) -> str | None:
        """The run's id; None as long as the store has not answered, and for good where tracking failed."""
        return None if self._failed else self._run_id

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Metrics after an epoch, counted from 1, under their own names."""
        self._log(epoch, metrics)

    def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics after an optimizer step, counted from 1, as `step_<name>`."""
        self._log(step, {f"step_{name}": value for name, value in metrics.items()})

    def finish(self, status: Status = "FINISHED", tags: Mapping[str, str] | None = None) -> None:
        """End the run, once; tags: what is known only now, `weights_sha256` among it. Waits a few seconds at most."""
        if self.ended is not None:
            return
        self.ended = now()
        self._status = status
        self._final_tags = dict(tags or {})
        self._waiting.put(None)
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.finish("KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED")

    def _log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._failed or self.ended is not None:
            return
        moment = now()
        self._waiting.put([Metric(name, float(value), moment, step) for name, value in metrics.items()])

    def _follow(self) -> None:
        try:
            with quick_answers():
                client = self.store.client()
                self._run_id = self.description.open(client, self.store.experiment(client, self.experiment))
                self._log_again(client, self._run_id)
                system = _System(self.store, self._run_id, self.description.started)
                while not self._has_ended:
                    log_metrics(client, self._run_id, self._next_metrics(system))
                if self._final_tags:
                    tags = [RunTag(key, str(value)) for key, value in self._final_tags.items()]
                    client.log_batch(self._run_id, tags=tags)
                client.set_terminated(self._run_id, self._status, end_time=self.ended)
        except Exception as error:
            # Whatever MLflow, its HTTP library or the database raise: none of it is worth a training.
            self._fail(" ".join(str(error).split())[:200] or type(error).__name__)

    def _log_again(self, client: MlflowClient, run_id: str) -> None:
        """What a training that goes on has measured before and its run lacks."""
        known = {
            (name, metric.step)
            for name in ("val_top1", "step_train_loss")
            if self.history or self.steps
            for metric in client.get_metric_history(run_id, name)
        }
        started = self.description.started
        history = [row for row in self.history if ("val_top1", row["epoch"]) not in known]
        steps = [row for row in self.steps if ("step_train_loss", row["step"]) not in known]
        log_metrics(client, run_id, epoch_metrics(history, started) + step_metrics(steps, started))

    def _next_metrics(self, system: "_System") -> list[Metric]:
        """All that came within WRITE_EVERY seconds of the first, or until the training's end, which it notes.

        The machine's are among them, each time it is their turn and at the end.
        """
        metrics: list[Metric] = []
        deadline = math.inf
        while not self._has_ended:
            try:
                until = min(deadline, system.due)
                more = self._waiting.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                if time.monotonic() >= deadline:
                    break
                more = system.measure()
            if more is None:
                self._has_ended = True
                metrics += system.measure()
                break
            if not metrics:
                deadline = time.monotonic() + WRITE_EVERY
            metrics += more
        return metrics

    def _fail(self, reason: str) -> None:
        if not self._failed:
            self._failed = True
            print(f"tracking failed, training goes on without it ({reason})", file=sys.stderr, flush=True)


class _System:
    """Load of processor, memory, disk, network and GPU, by MLflow's own monitor, every ten seconds.

    MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL changes that. MLflow's thread for it is not started: where tracking fails,
    it would tell so a second time.
    """

    def __init__(self, store: Store, run_id: str, started: int) -> None:
        self._monitor = SystemMetricsMonitor(run_id, tracking_uri=store.uri)
        self._started = started
        self.measure()  # the first load is that since the computer was started: nobody wants to see it

    def measure(self) -> list[Metric]:
        """What is measured now, as far as it can be; their step is the second of the training."""
        self.due = time.monotonic() + self._monitor.sampling_interval
        measured: dict[str, float] = {}
        for monitor in self._monitor.monitors:
            try:
                monitor.collect_metrics()
                measured |= monitor.aggregate_metrics()
            except Exception:
                # A driver that was updated, a disk that was unmounted: the curves of the training matter more.
                continue
            finally:
                monitor.clear_metrics()
        moment = now()
        step = max(0, moment - self._started) // 1000
        return [Metric(SYSTEM_METRICS + name, float(value), moment, step) for name, value in measured.items()]


def now() -> int:
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000
