"""Where runs and models are tracked: the server that MLFLOW_TRACKING_URI names, else a database beside the code."""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Experiment

from stages.common.errors import UserError

DATABASE = "mlflow.db"  # the name `mlflow ui` looks for in the folder it is started in
ARTIFACTS = "mlartifacts"
FOLDER_TAG = "artifacts_folder"  # on experiments made here: where their artifacts are meant to be
KIND = {"mlflow.experimentKind": "custom_model_development"}  # MLflow's pages show the runs first, not its GenAI view
SQLITE = "sqlite:///"
# MLflow's own limits are made for jobs that may wait: seven retries of two minutes each.
HTTP_LIMITS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}


@contextmanager
def quick_answers() -> Iterator[None]:
    """Give up within a minute on a server that is gone, unless the user has chosen other limits."""
    chosen = {name: value for name, value in HTTP_LIMITS.items() if name not in os.environ}
    os.environ.update(chosen)
    try:
        yield
    finally:
        for name in chosen:
            os.environ.pop(name, None)


@dataclass(frozen=True)
class Store:
    """A tracking store.

    uri: as MLflow takes it.
    folder: of the SQLite database, absolute; None for anything else, whose server looks after itself.
    root: of the repository, absolute.
    """

    uri: str
    folder: Path | None
    root: Path

    @classmethod
    def of_repository(cls, root: Path) -> Self:
        """The store in use for the repository at `root`: MLFLOW_TRACKING_URI if set, else `root`/mlflow.db."""
        root = root.resolve()
        uri = os.environ.get("MLFLOW_TRACKING_URI") or SQLITE + DATABASE
        if not uri.startswith(SQLITE):
            return cls(uri, folder=None, root=root)
        # A relative path counts from the repository, not from the temporary copy a stage may run in. SQLAlchemy takes
        # what follows a question mark for options, and decodes percent signs.
        path = Path(str(root).replace("%", "%25").replace("?", "%3F")) / uri.removeprefix(SQLITE)
        folder = Path(unquote(str(path).split("?")[0])).parent
        return cls(f"{SQLITE}{path}", folder, root=root)

    @property
    def is_remote(self) -> bool:
        """Whether calls go over the network."""
        return urlsplit(self.uri).scheme in ("http", "https", "databricks", "databricks-uc")

    @property
    def is_default(self) -> bool:
        """Whether `mlflow ui`, started in the repository, finds this store by itself."""
        return self.folder == self.root and self.uri.endswith(f"/{DATABASE}")

    @property
    def shown_uri(self) -> str:
        """The URI without a password."""
        parts = urlsplit(self.uri)
        return self.uri.replace(parts.netloc, parts.netloc.rsplit("@", 1)[1]) if "@" in parts.netloc else self.uri

    def client(self) -> MlflowClient:
        """A client of this store; a missing SQLite database is created, by one process at a time.

        UserError where the store does not answer.
        """
        # MLflow tells of every migration of a new database, and of every attempt to reach what cannot be reached.
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        for name in ("mlflow.store.db.utils", "urllib3.connectionpool"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with self.lock("database"):
            client = MlflowClient(tracking_uri=self.uri)
        try:
            with quick_answers():
                client.search_experiments(max_results=1)
        except Exception as error:
            # MLflow, its HTTP library and the database's driver each raise their own.
            reason = " ".join(str(error).split())[:150] or type(error).__name__
            raise UserError(
                f"no answer from the tracking store {self.shown_uri} ({reason}): start it, or unset MLFLOW_TRACKING_URI"
            ) from error
        return client

    @contextmanager
    def as_default(self) -> Iterator[None]:
        """Make this MLflow's store for the whole process: its registry asks no client which store it belongs to."""
        before = os.environ.get("MLFLOW_TRACKING_URI")
        mlflow.set_tracking_uri(self.uri)
        try:
            yield
        finally:
            mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # forgets the variable, too
            if before is not None:
                os.environ["MLFLOW_TRACKING_URI"] = before

    def experiment(self, client: MlflowClient, name: str) -> str:
        """The id of the experiment of that name; created if missing, restored if deleted.

        In a SQLite store its artifacts stand in the folder `mlartifacts` beside the database, under an absolute path.
        A database that was moved, or copied, still names the old folder, which cannot be changed: that experiment is
        renamed and a fresh one takes its place.
        """
        with self.lock("database"):
            experiment = client.get_experiment_by_name(name)
            if experiment is not None and self._was_moved(experiment):
                former = f"{name} (artifacts in {experiment.tags[FOLDER_TAG]}, {experiment.experiment_id})"
                client.rename_experiment(experiment.experiment_id, former)
                experiment = None
            if experiment is None:
                return self._create_experiment(client, name)
            if experiment.lifecycle_stage == "deleted":
                client.restore_experiment(experiment.experiment_id)
            return experiment.experiment_id

    def lock(self, purpose: str) -> FileLock:
        """A lock between the processes of this machine that use this database, or of this user that use this server.

        Released when the holder ends, however it ends. UserError where its folder cannot be written.
        """
        if self.folder is not None:
            if not os.access(self.folder, os.W_OK):
                raise UserError(
                    f"cannot write the tracking database in {self.folder}: allow it, or set MLFLOW_TRACKING_URI"
                )
            return FileLock(self.folder / f"{DATABASE}.{purpose}.lock")  # git ignores mlflow.db*
        # Not in the repository: its copies use the same server.
        folder = Path(tempfile.gettempdir()) / f"mlflow-{os.getuid()}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot create {folder} for lock files ({error.strerror}): allow it, or set TMPDIR"
            ) from error
        if not os.access(folder, os.W_OK):
            raise UserError(f"cannot write lock files in {folder}: allow it, or set TMPDIR")
        server = sha256(_one_name(self.shown_uri).encode()).hexdigest()[:16]
        return FileLock(folder / f"{server}.{purpose}.lock")

    def _create_experiment(self, client: MlflowClient, name: str) -> str:
        if self.folder is None:
            return client.create_experiment(name, tags=KIND)
        artifacts = self.folder / ARTIFACTS
        location = (artifacts / name).as_uri()
        return client.create_experiment(name, artifact_location=location, tags={FOLDER_TAG: str(artifacts), **KIND})

    def _was_moved(self, experiment: Experiment) -> bool:
        meant = experiment.tags.get(FOLDER_TAG)
        return self.folder is not None and meant is not None and meant != str(self.folder / ARTIFACTS)


def _one_name(uri: str) -> str:
    """A server's URI as it is the same for those who write the host in capitals, or this machine as localhost."""
    parts = urlsplit(uri)
    host = parts.hostname or ""
    if host in ("localhost", "::1"):
        host = "127.0.0.1"
    return f"{parts.scheme}://{host}:{parts.port}{parts.path.rstrip('/')}?{parts.query}"
