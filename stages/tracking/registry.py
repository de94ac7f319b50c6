"""The registered model: one version per trained model, its aliases, and the run that compares them."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModelOutput, Metric
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from stages.tracking import champion
from stages.tracking.card import card, with_card
from stages.tracking.champion import (
    FILES_SHA256,
    PACKAGE_SHA256,
    TRAINING_IMAGES,
    Decision,
    RegisteredCandidate,
    Validation,
    describe,
    is_gone,
    model_id,
    not_loaded,
    set_tags,
    versions_of,
)
from stages.tracking.explorer import FOLDER as EXPLORER
from stages.tracking.explorer import Explorer
from stages.tracking.gate import Gate, hashes
from stages.tracking.package import MODEL_FILE, Package, contents_sha256, files_sha256
from stages.tracking.replay import Training, ensure_run, is_complete
from stages.tracking.runs import log_metrics, now
from stages.tracking.store import Store

COMPARISON = "comparison"  # name of the run
COMPARISON_SHA256 = "comparison_sha256"  # tag of it: hash of its files
PLOTS_SHA256 = "plots_sha256"  # tag of a model's run: hash of its plots
LOGGED_AGAIN = "logged_again"  # tag of a version: why the same package is registered a second time


@dataclass(frozen=True)
class Entry:
    """A trained model on its way into the registry.

    right: (N,) bool, on which images of the validation split its top-1 is right.
    n_test: images of the test split, on which its metrics were measured.
    plots: of this model alone, for its run.
    """

    package: Package
    training: Training
    right: np.ndarray
    n_test: int
    plots: Sequence[Path] = ()

    @property
    def model(self) -> str:
        return self.package.exported.model


@dataclass(frozen=True)
class Comparison:
    """What the run that compares them holds. files: by their path in it, which ends with their name."""

    files: Mapping[str, Path]
    explorer: Explorer | None = None


@dataclass(frozen=True)
class Registration:
    """What was done. versions: of each model; metadata: of each version, without what depends on the store."""

    name: str
    versions: dict[str, str]
    decision: Decision
    metadata: dict[str, dict[str, Any]]


def register(
    store: Store,
    experiment: str,
    name: str,
    entries: Sequence[Entry],
    comparison: Comparison,
    *,
    train_images: np.ndarray,
    val: Validation,
    gate: Gate,
) -> Registration:
    """Bring the store up to date: runs, metrics, versions of the registered model `name`, aliases, champion.

    train_images: (N, H, W, 3) uint8, all images that the entries may have been trained on; their hashes travel with
    each version, so that a later candidate can be compared with it on others.
    Doing it again changes nothing. One process of this machine does it at a time.
    A model's name becomes an alias: letters, digits, - and _. UserError where the store does not answer.
    """
    with store.lock("registration"), store.as_default():
        client = store.client()
        experiment_id = store.experiment(client, experiment)
        _create_registered_model(client, name, experiment)
        comparison_run_id = _ensure_comparison(client, experiment_id, comparison)
        candidates = []
        for entry in entries:
            run_id = ensure_run(client, store, experiment, entry.training)
            version = _ensure_version(client, experiment_id, name, entry.package, run_id, train_images)
            metadata = entry.package.metadata
            _log_final_metrics(client, run_id, model_id(version), metadata["metrics"])
            _ensure_plots(client, run_id, entry.plots)
            set_tags(client, version, {"comparison_run_id": comparison_run_id})
            text = card(name, str(version.version), metadata, entry.n_test)
            version = describe(client, version, with_card(version.description, text))
            candidates.append(
                RegisteredCandidate(entry.model, metadata["metrics"]["val"]["top1"], version, entry.right)
            )
        versions = {candidate.model: candidate.number for candidate in candidates}
        # `champion` last: whoever reads it finds everything in place.
        _set_own_aliases(client, name, versions)
        decision = champion.decide(client, name, candidates, val, gate)
    return Registration(name, versions, decision, {entry.model: entry.package.metadata for entry in entries})


def _create_registered_model(client: MlflowClient, name: str, source: str) -> None:
    try:
        client.create_registered_model(name, description=f"Image classifiers trained on {source}")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _ensure_version(
    client: MlflowClient, experiment_id: str, name: str, package: Package, run_id: str, train_images: np.ndarray
) -> ModelVersion:
    """The version that holds the package; registered now if there is none that works."""
    metadata = package.metadata
    tags = {
        key: metadata[key]
        for key in ("model", "source", "weights_sha256", "onnx_sha256", "data_sha256", PACKAGE_SHA256)
    }
    for version in versions_of(client, name):
        if version.tags.get(PACKAGE_SHA256) != metadata[PACKAGE_SHA256]:
            continue
        problem = _problem(client, experiment_id, version, package)
        if problem is None:
            return version
        tags.setdefault(LOGGED_AGAIN, f"version {version.version}: {problem}")
    logged, tags[FILES_SHA256] = _log_model(client, experiment_id, run_id, package, train_images)
    return client.create_model_version(name, source=f"models:/{logged}", run_id=run_id, model_id=logged, tags=tags)


def _problem(client: MlflowClient, experiment_id: str, version: ModelVersion, package: Package) -> str | None:
    """Why a version cannot be used any more; None if it can. UserError where the store does not tell now."""
    try:
        location = client.get_logged_model(model_id(version)).artifact_location
        files = client.list_logged_model_artifacts(model_id(version), "artifacts")
        found = {Path(file.path).name: file.file_size for file in files}
        if found != {MODEL_FILE: package.exported.file.stat().st_size}:
            return f"its artifacts are not in {location} any more"
        with tempfile.TemporaryDirectory() as temporary:
            # A store on this machine gives the files in place.
            folder = Path(
                download_artifacts(f"models:/{model_id(version)}", dst_path=_unless_local(location, temporary))
            )
            if FILES_SHA256 in version.tags and version.tags[FILES_SHA256] != files_sha256(folder):
                return f"its artifacts in {location} were changed"
    except Exception as error:
        if not is_gone(error):
            raise not_loaded(version, error) from error
        return f"its artifacts are gone ({' '.join(str(error).split())[:150]})"
    if not is_complete(client, version.run_id or "", experiment_id, package.metadata["weights_sha256"]):
        return f"its run {version.run_id} is gone"
    return None


def _log_model(
    client: MlflowClient, experiment_id: str, run_id: str, package: Package, train_images: np.ndarray
) -> tuple[str, str]:
    """Build the package and store it as an MLflow model of the run; returns the model's id, and the files' hash.

    MLflow's log_model would do the same, and then run the model to try the example.
    """
    logged = client.create_logged_model(
        experiment_id, name=package.exported.model, source_run_id=run_id, model_type="classifier"
    )
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            described = Model(
                artifact_path=logged.artifact_location,
                run_id=run_id,
                model_uuid=logged.model_id,
                model_id=logged.model_id,
            )
            package.save(folder, described)
            np.save(folder / TRAINING_IMAGES, hashes(train_images), allow_pickle=False)
            files_hash = files_sha256(folder)
            client.log_model_artifacts(logged.model_id, str(folder))
    except BaseException:
        client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return logged.model_id, files_hash


def _unless_local(location: str, folder: str) -> str | None:
    return None if isinstance(get_artifact_repository(location), LocalArtifactRepository) else folder


def _log_final_metrics(client: MlflowClient, run_id: str, model_id: str, metrics: Mapping[str, Any]) -> None:
    """The measured metrics as `val/top1`, `test/top1` ... of the run and of its model, at the time the run ended.

    A value that was measured anew bears the present time: MLflow takes the latest for the valid one.
    """
    run = client.get_run(run_id)
    of_run = run.data.metrics
    of_model = {metric.key: metric.value for metric in client.get_logged_model(model_id).metrics or []}
    measured = now()
    new = [
        Metric(key, value, measured if key in of_run else run.info.end_time, step=0, model_id=model_id, run_id=run_id)
        for key, value in _numbers(metrics)
        if of_run.get(key) != value or of_model.get(key) != value
    ]
    log_metrics(client, run_id, new)


def _numbers(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{prefix}{key}", float(value)


def _ensure_plots(client: MlflowClient, run_id: str, plots: Sequence[Path]) -> None:
    """A model's own plots among the artifacts of its run; logged once for each content, and where they are gone."""
    sha256 = contents_sha256({plot.name: plot for plot in plots})
    there = {Path(file.path).name for file in client.list_artifacts(run_id, "plots")} if plots else set()
    known = client.get_run(run_id).data.tags.get(PLOTS_SHA256)
    if known != sha256 or not there >= {plot.name for plot in plots}:
        for plot in plots:
            client.log_artifact(run_id, str(plot), "plots")
        client.set_tag(run_id, PLOTS_SHA256, sha256)


def _ensure_comparison(client: MlflowClient, experiment_id: str, comparison: Comparison) -> str:
    """The id of the run that holds these files; created if there is none."""
    files, explorer = comparison.files, comparison.explorer
    sha256 = contents_sha256(files, also=explorer.sha256 if explorer else "")
    expected = {place.split("/")[0] for place in files} | ({EXPLORER} if explorer else set())
    for run in client.search_runs([experiment_id], f"tags.{COMPARISON_SHA256} = '{sha256}'"):
        top_level = {file.path for file in client.list_artifacts(run.info.run_id)}
        if run.info.status == "FINISHED" and top_level == expected:
            return run.info.run_id
        client.delete_run(run.info.run_id)  # interrupted, or its artifacts are gone
    run_id = client.create_run(experiment_id, run_name=COMPARISON, tags={COMPARISON_SHA256: sha256}).info.run_id
    for place, file in files.items():
        client.log_artifact(run_id, str(file), str(Path(place).parent) if "/" in place else None)
    if explorer:
        with tempfile.TemporaryDirectory() as temporary:
            explorer.write(Path(temporary))
            client.log_artifacts(run_id, temporary, EXPLORER)
    client.set_terminated(run_id)
    return run_id


def _set_own_aliases(client: MlflowClient, name: str, versions: Mapping[str, str]) -> None:
    """Each model's own name on its version."""
    aliases = {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}
    for model, version in versions.items():
        if aliases.get(model) != version:
            client.set_registered_model_alias(name, model, version)
