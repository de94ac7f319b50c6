"""The MLflow store brought up to date: runs, final metrics, one version per trained model, and who is champion."""

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from stages.tracking.gate import Gate
from stages.tracking.package import (
    FILES_SHA256,
    PACKAGE_SHA256,
    SEEN_IMAGES,
    Package,
    contents_sha256,
    files_sha256,
)
from stages.tracking.registered_model import Decision, GateCandidate, GateSplit, RegisteredModel, model_id
from stages.tracking.replay import TrainingRecord, ensure_run
from stages.tracking.runs import WEIGHTS_SHA256, find_runs, log_metrics, now
from stages.tracking.seeds import ensure_parent
from stages.tracking.store import Store

COMPARISON = "comparison"  # name of the run that compares the models
COMPARISON_SHA256 = "comparison_sha256"  # tag of it: hash of its files
REPORT = "comparison.md"  # among its files
NOTE = "mlflow.note.content"  # tag of it: the report, as far as it fits; MLflow's page shows it
NOTE_LENGTH = 8000  # characters of a tag that MLflow keeps; it would cut the rest off
LOGGED_AGAIN = "logged_again"  # tag of a version: why the same package is registered a second time
TAGS = ("model", "source", WEIGHTS_SHA256, "onnx_sha256", "data_sha256", PACKAGE_SHA256)  # of a version


@dataclass(frozen=True)
class Entry:
    """A trained model on its way into the registry.

    right: (N,) bool, on which images of gate its top-1 is right.
    n_test: images of the test split, on which its metrics were measured.
    plots: of this model alone, for its run.
    others: trainings of the same model with other seeds; they get runs, no versions.
    """

    package: Package
    training: TrainingRecord
    right: np.ndarray
    n_test: int
    plots: Sequence[Path] = ()
    others: Sequence[TrainingRecord] = ()


def register(
    store: Store,
    experiment: str,
    name: str,
    entries: Sequence[Entry],
    comparison: Mapping[str, Path],
    *,
    seen: np.ndarray,
    split: GateSplit,
    gate: Gate,
) -> Decision:
    """Bring the store up to date: runs, metrics, versions of the registered model `name`, aliases, champion.

    comparison: files of the run that compares the models, by their path in it; REPORT is one of them, and its note.
    seen: (N,) uint64, hashes of all images that the entries may have been trained on or selected by (image_hashes);
    they travel with each version, so that a later candidate can be compared with it on others.
    Doing it again changes nothing. One process of this machine does it at a time.
    A model's name becomes an alias: letters, digits, - and _. UserError where the store does not answer.
    """
    with store.exclusive() as client:
        experiment_id = store.experiment(client, experiment)
        try:
            client.create_registered_model(name, description=f"Image classifiers trained on {experiment}")
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        registered = RegisteredModel(client, name)
        comparison_run_id = _ensure_comparison(client, experiment_id, comparison)
        candidates = []
        for entry in entries:
            run_id = ensure_run(client, store, experiment, entry.training)
            if others := [ensure_run(client, store, experiment, other) for other in entry.others]:
                model, seeds = entry.package.exported.model, entry.package.metrics["seeds"]
                ensure_parent(client, experiment_id, model, [run_id, *others], seeds)
            version = _ensure_version(registered, experiment_id, entry.package, run_id, seen)
            number, metrics = str(version.version), entry.package.metrics
            _log_final_metrics(client, run_id, model_id(version), metrics)
            _log_files(client, run_id, {f"plots/{plot.name}": plot for plot in entry.plots})
            client.set_model_version_tag(name, number, "comparison_run_id", comparison_run_id)
            if version.description != (card := entry.package.card(name, number, entry.n_test)):
                client.update_model_version(name, number, card)
            candidates.append(GateCandidate(version, metrics["val"]["top1"], entry.right))
            client.set_registered_model_alias(name, candidates[-1].model, number)
        return registered.decide(candidates, split, gate)


def _ensure_version(
    registered: RegisteredModel, experiment_id: str, package: Package, run_id: str, seen: np.ndarray
) -> ModelVersion:
    """The version that holds the package; registered now if there is none that works."""
    client, metadata = registered.client, package.metadata
    tags = {key: metadata[key] for key in TAGS}
    for version in registered.versions():
        if version.tags.get(PACKAGE_SHA256) != metadata[PACKAGE_SHA256]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            problem = registered.problem(version, Path(folder))
        finished = find_runs(client, experiment_id, {WEIGHTS_SHA256: tags[WEIGHTS_SHA256]}, "FINISHED")
        if not problem and version.run_id not in finished:
            problem = f"its run {version.run_id} is gone"
        if not problem:
            return version
        tags.setdefault(LOGGED_AGAIN, f"version {version.version}: {problem}")
    logged, tags[FILES_SHA256] = _log_model(client, experiment_id, run_id, package, seen)
    return client.create_model_version(
        registered.name, source=f"models:/{logged}", run_id=run_id, model_id=logged, tags=tags
    )


def _log_model(
    client: MlflowClient, experiment_id: str, run_id: str, package: Package, seen: np.ndarray
) -> tuple[str, str]:
    """Build the package and store it as an MLflow model of the run; returns the model's id, and the files' hash.

    MLflow's log_model would do the same, and then run the model to try the example.
    """
    logged = client.create_logged_model(
        experiment_id, name=package.exported.model, source_run_id=run_id, model_type="classifier"
    )
    key, location, status = logged.model_id, logged.artifact_location, LoggedModelStatus.FAILED
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            package.save(folder, Model(artifact_path=location, run_id=run_id, model_uuid=key, model_id=key))
            np.save(folder / SEEN_IMAGES, seen, allow_pickle=False)
            files_hash = files_sha256(folder)
            client.log_model_artifacts(key, str(folder))
            status = LoggedModelStatus.READY
    finally:
        client.finalize_logged_model(key, status)
    client.log_outputs(run_id, [LoggedModelOutput(key, step=0)])
    return key, files_hash


def _log_final_metrics(client: MlflowClient, run_id: str, model_id: str, metrics: Mapping[str, Any]) -> None:
    """The measured metrics as `val/top1`, `test/top1` ... of the run and of its model, at the time the run ended.

    A value that was measured anew bears the present time: MLflow takes the latest for the valid one.
    """
    run, measured = client.get_run(run_id), now()
    of_run = run.data.metrics
    of_model = {metric.key: metric.value for metric in client.get_logged_model(model_id).metrics or []}
    [flat] = pd.json_normalize(dict(metrics), sep="/").to_dict("records")
    numbers = {str(key): value for key, value in flat.items() if type(value) in (int, float)}  # no flags
    new = [
        Metric(key, value, measured if key in of_run else run.info.end_time, step=0, model_id=model_id, run_id=run_id)
        for key, value in numbers.items()
        if of_run.get(key) != value or of_model.get(key) != value
    ]
    log_metrics(client, run_id, new)


def _ensure_comparison(client: MlflowClient, experiment_id: str, files: Mapping[str, Path]) -> str:
    """The id of the run that holds these files; created if there is none."""
    sha256 = contents_sha256(files)
    for run_id in find_runs(client, experiment_id, {COMPARISON_SHA256: sha256}, "FINISHED"):
        if {file.path for file in client.list_artifacts(run_id)} == {place.split("/")[0] for place in files}:
            return run_id
        client.delete_run(run_id)  # its artifacts are gone
    tags = {COMPARISON_SHA256: sha256, NOTE: _note(files)}
    run_id = client.create_run(experiment_id, run_name=COMPARISON, tags=tags).info.run_id
    _log_files(client, run_id, files)
    client.set_terminated(run_id)
    return run_id


def _note(files: Mapping[str, Path]) -> str:
    """The report for the run's page: its links to other files, which lead nowhere there, name the artifacts."""

    def named(link: re.Match[str]) -> str:
        return f"{link[1]} (artifact `{link[2]}`)" if link[2] in files else link[1]

    text = re.sub(r"!?\[([^]]*)\]\((?!https?:)([^)]*)\)", named, files[REPORT].read_text(encoding="utf-8"))
    if len(text) <= NOTE_LENGTH:
        return text
    rest = f"\n\nThe rest is in the artifact `{REPORT}`."
    return text[: NOTE_LENGTH - len(rest)].rpartition("\n#")[0].rstrip() + rest


def _log_files(client: MlflowClient, run_id: str, files: Mapping[str, Path]) -> None:
    """Log files by their path in the run, in the place of those that are there."""
    for place, file in files.items():
        client.log_artifact(run_id, str(file), place.rpartition("/")[0] or None)
