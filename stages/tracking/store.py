"""Where runs and models are tracked: the server that MLFLOW_TRACKING_URI names, else a database beside the code."""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

import mlflow
from filelock import FileLock
from mlflow import MlflowClient

from stages.common.errors import UserError

DATABASE = "mlflow.db"  # the name `mlflow ui` looks for in the folder it is started in
ARTIFACTS = "mlartifacts"
KIND = {"mlflow.experimentKind": "custom_model_development"}  # MLflow's pages show the runs first, not its GenAI view
SQLITE = "sqlite:///"
# MLflow's own limits are made for jobs that may wait: seven retries of two minutes each.
HTTP_LIMITS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
# Of every migration of a new database; of every attempt to reach what cannot be reached.
LOG_LEVELS = {
    logging.WARNING: ("mlflow", "alembic"),
    logging.CRITICAL: ("mlflow.store.db.utils", "mlflow.system_metrics", "urllib3.connectionpool"),
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
    """

    uri: str
    folder: Path | None

    @classmethod
    def of_repository(cls, root: Path) -> Self:
        """The store in use for the repository at `root`: MLFLOW_TRACKING_URI if set, else `root`/mlflow.db."""
        root = root.resolve()
        uri = os.environ.get("MLFLOW_TRACKING_URI") or SQLITE + DATABASE
        if not uri.startswith(SQLITE):
            return cls(uri, folder=None)
        # A relative path counts from the repository, not from the temporary copy a stage may run in. SQLAlchemy takes
        # what follows a question mark for options, and decodes percent signs.
        path = Path(str(root).replace("%", "%25").replace("?", "%3F")) / uri.removeprefix(SQLITE)
        folder = Path(unquote(str(path).split("?")[0])).parent
        return cls(f"{SQLITE}{path}", folder)

    @property
    def is_remote(self) -> bool:
        """Whether calls go over the network."""
        return urlsplit(self.uri).scheme in ("http", "https", "databricks", "databricks-uc")

    @property
    def shown_uri(self) -> str:
        """The URI without a password."""
        parts = urlsplit(self.uri)
        return self.uri.replace(parts.netloc, parts.netloc.rsplit("@", 1)[1]) if "@" in parts.netloc else self.uri

    def client(self) -> MlflowClient:
        """A client of this store; a missing SQLite database is created, by one process at a time.

        UserError where the store does not answer.
        """
        for level, names in LOG_LEVELS.items():
            for name in names:
                logging.getLogger(name).setLevel(level)
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
    def exclusive(self) -> Iterator[MlflowClient]:
        """A client for one registration, or roll-back, at a time on this machine; UserError as of `client`.

        Meanwhile this is MLflow's store for the whole process: its registry asks no client which store it belongs to.
        """
        with self.lock("registration"):
            before = os.environ.get("MLFLOW_TRACKING_URI")  # not what another thread sets meanwhile
            mlflow.set_tracking_uri(self.uri)
            try:
                yield self.client()
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
        location = (self.folder / ARTIFACTS / name).as_uri() if self.folder else None
        with self.lock("database"):
            experiment = client.get_experiment_by_name(name)
            if experiment and location and _is_moved(experiment.artifact_location, location):
                former = f"{name} (artifacts in {experiment.artifact_location}, {experiment.experiment_id})"
                client.rename_experiment(experiment.experiment_id, former)
                experiment = None
            if experiment is None:
                return client.create_experiment(name, artifact_location=location, tags=KIND)
            if experiment.lifecycle_stage == "deleted":
                client.restore_experiment(experiment.experiment_id)
            return experiment.experiment_id

    def lock(self, purpose: str) -> FileLock:
        """A lock between the processes of this machine that use this database, or of this user that use any server.

        Released when the holder ends, however it ends. UserError where its folder cannot be written.
        """
        # Not in the repository where it is a server's: copies of the repository use the same one. The same for every
        # server, as one has several names.
        folder = self.folder or Path(tempfile.gettempdir()) / f"mlflow-{os.getuid()}"
        try:
            if self.folder is None:
                folder.mkdir(mode=0o700, exist_ok=True)
            is_writable = os.access(folder, os.W_OK)
        except OSError:
            is_writable = False
        if not is_writable:
            other = "MLFLOW_TRACKING_URI" if self.folder else "TMPDIR"
            raise UserError(f"cannot write the tracking database or its locks in {folder}: allow it, or set {other}")
        return FileLock(folder / f"{DATABASE}.{purpose}.lock")  # git ignores mlflow.db*


def _is_moved(location: str, expected: str) -> bool:
    """Whether artifacts were to stand as `expected` beside a database that stood elsewhere."""
    return location != expected and location.endswith("/".join(["", *expected.split("/")[-2:]]))
