"""Registered models, as the app needs them: which one answers, and the loaded model. Knows nothing of Streamlit.

Everything that can go wrong between here and the tracking server is a RegistryError of one line that names the way on.
"""

import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

import numpy as np

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

REPOSITORY = Path(__file__).resolve().parents[1]
SQLITE = "sqlite:///"
CHAMPION = "champion"
REGISTERED = {"code": "code_sha256", "weights": "weights_sha256"}  # tags of a version; its package says the same
HOW_TO_MAKE_ONE = (
    "`dvc repro` trains and registers one, `make demo` a small one on generated pictures within minutes, and "
    "`make register` brings back one that was trained here"
)
REGISTER_AGAIN = "register it again with `make register` (a demo model: `make demo`)"

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


class RegistryError(Exception):
    """What stands between the app and its model. The message is one line of Markdown: what is wrong, what to do."""


@dataclass(frozen=True)
class Version:
    """One version of a registered model; two are equal if they name the same model of the same registry.

    created: milliseconds since 1970; tells apart versions of the same number in a registry that was made anew.
    tags, description, aliases, run_id (of the training): as they were when the registry was asked.
    """

    tracking_uri: str
    name: str
    number: int
    created: int
    tags: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    description: str = field(default="", compare=False, repr=False)
    aliases: tuple[str, ...] = field(default=(), compare=False)
    run_id: str = field(default="", compare=False)

    @property
    def identity(self) -> tuple[str, str, int, int]:
        """What two equal versions share: the key of whatever is kept for a version."""
        return self.tracking_uri, self.name, self.number, self.created

    def __str__(self) -> str:
        return f"version {self.number} of {self.name}"


@dataclass(frozen=True)
class Reign:
    """A time for which a version was champion.

    since, until: ISO 8601; until: empty where it lasts. rolled_back: whether a person put another one in its place.
    """

    version: Version
    since: str
    until: str
    rolled_back: bool


@dataclass(frozen=True)
class Answer:
    """One class and how sure the model is of it, between 0 and 1."""

    class_name: str
    superclass_name: str
    confidence: float


@dataclass(frozen=True)
class Training:
    """The run that trained a version: parameters, metrics (`test/top1` ...), tags (`git_commit` ...).

    started: milliseconds since 1970; seconds: how long it took, None where it did not end.
    place: where it stands among MLflow's pages; page: its address, None where no server shows them.
    """

    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    started: int
    seconds: float | None
    place: str
    page: str | None


class Registry:
    """The model registry of a tracking server or database."""

    def __init__(self, tracking_uri: str) -> None:
        """tracking_uri: as MLflow takes it, absolute if it is a path; see `connect`."""
        self.tracking_uri = tracking_uri
        self._shown_uri = without_password(tracking_uri)

    def champions(self) -> list[Version]:
        """The champion of every registered model, the one promoted last first; RegistryError if there is none.

        A registered model whose champion cannot be looked up is left out, unless it is the only one.
        """
        with self._asked() as client:
            page = client.search_registered_models()
            registered = list(page)
            while page.token:
                page = client.search_registered_models(page_token=page.token)
                registered += page
            if not registered:
                raise RegistryError(f"No model is registered yet at `{self._shown_uri}`: {HOW_TO_MAKE_ONE}.")
            found: list[Version] = []
            failure: Exception | None = None
            for model in registered:
                if CHAMPION in model.aliases:
                    try:
                        found.append(self._version(client, model.name, model.aliases[CHAMPION], model.aliases))
                    except Exception as error:
                        logger.warning("the champion of %s is left out", model.name, exc_info=True)
                        failure = error
            if not found and failure is not None:
                raise failure
        if not found:
            names = ", ".join(model.name for model in registered)
            raise RegistryError(f"No version of {names} is champion: `make register` chooses one again.")
        found.sort(key=lambda version: (_seconds(version.tags.get("promoted_at")), version.number), reverse=True)
        return found

    def aliases(self, name: str) -> dict[str, Version]:
        """The versions of a registered model that bear an alias, by alias; RegistryError if there is no such model."""
        with self._asked() as client:
            aliases = self._registered(client, name).aliases
            # All at once: the app asks at every interaction, and a call for each takes longer.
            versions = {str(version.version): self._described(version, aliases) for version in _versions(client, name)}
            return {
                alias: versions[str(number)] for alias, number in sorted(aliases.items()) if str(number) in versions
            }

    def version(self, name: str, alias_or_number: str | int) -> Version:
        """A version of a registered model by one of its aliases or by its number; RegistryError if there is none."""
        with self._asked() as client:
            aliases = self._registered(client, name).aliases
            wanted = str(alias_or_number)
            if wanted not in aliases and not wanted.isdecimal():
                there_are = ", ".join(sorted(aliases)) or "none"
                raise RegistryError(f"{name} has no alias `{wanted}`: name a version's number or one of {there_are}.")
            try:
                return self._version(client, name, aliases.get(wanted, wanted), aliases)
            except Exception as error:
                if _is_missing(error):
                    raise RegistryError(
                        f"{name} has no version {wanted}: look at its versions with `mlflow ui`."
                    ) from None
                raise

    def history(self, name: str) -> list[Reign]:
        """Every time that a version of a registered model is or was its champion, the last one first."""
        with self._asked() as client:
            aliases = self._registered(client, name).aliases
            versions = [self._described(version, aliases) for version in _versions(client, name)]
        reigns = [reign for version in versions for reign in _reigns(version)]
        return sorted(reigns, key=lambda reign: _seconds(reign.since), reverse=True)

    def training(self, version: Version) -> Training:
        """The run that trained a version; RegistryError where it is gone."""
        with self._asked() as client:
            try:
                run = client.get_run(version.run_id)
            except Exception as error:
                if not version.run_id or _is_missing(error):
                    raise RegistryError(
                        f"The run that trained {version} is gone: `make register` brings it back where it was trained."
                    ) from None
                raise
        place = f"experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
        is_server = self.tracking_uri.startswith(("http://", "https://"))
        return Training(
            params=dict(run.data.params),
            metrics=dict(run.data.metrics),
            tags=dict(run.data.tags),
            started=run.info.start_time,
            seconds=(run.info.end_time - run.info.start_time) / 1000 if run.info.end_time else None,
            place=place,
            page=f"{self._shown_uri.rstrip('/')}/#/{place}" if is_server else None,
        )

    @property
    def ui_command(self) -> str:
        """What starts MLflow's pages for a database on this machine."""
        default = f"{SQLITE}{_in_sqlite_uri(REPOSITORY)}/mlflow.db"
        return "mlflow ui" if self.tracking_uri == default else f"mlflow ui --backend-store-uri '{self._shown_uri}'"

    def _registered(self, client: "MlflowClient", name: str) -> "RegisteredModel":
        try:
            return client.get_registered_model(name)
        except Exception as error:
            if _is_missing(error):
                raise RegistryError(
                    f"No model `{name}` is registered at `{self._shown_uri}`: {HOW_TO_MAKE_ONE}."
                ) from None
            raise

    def _version(self, client: "MlflowClient", name: str, number: str | int, aliases: Mapping[str, str]) -> Version:
        return self._described(client.get_model_version(name, str(number)), aliases)

    def _described(self, found: "ModelVersion", aliases: Mapping[str, str]) -> Version:
        return Version(
            tracking_uri=self.tracking_uri,
            name=found.name,
            number=int(found.version),
            created=found.creation_timestamp or 0,
            tags=dict(found.tags),
            description=found.description or "",
            aliases=tuple(sorted(alias for alias, of in aliases.items() if str(of) == str(found.version))),
            run_id=found.run_id or "",
        )

    @contextmanager
    def _asked(self) -> "Iterator[MlflowClient]":
        """A client of the tracking server; whatever keeps it from answering is a RegistryError."""
        database = Path(unquote(self.tracking_uri.removeprefix(SQLITE).split("?")[0]))
        if self.tracking_uri.startswith(SQLITE) and not database.exists():  # MLflow would create it
            raise RegistryError(f"No model is registered yet, `{database}` does not exist: {HOW_TO_MAKE_ONE}.")
        try:
            from mlflow import MlflowClient  # takes seconds: the page is drawn before

            yield MlflowClient(tracking_uri=self.tracking_uri)
        except RegistryError:
            raise
        except Exception as error:  # of requests, SQLAlchemy, MLflow: the user's way on is the same
            logger.warning("%s does not answer", self._shown_uri, exc_info=True)
            raise RegistryError(
                f"MLflow does not answer at `{self._shown_uri}` ({reason(error)}): start its server, "
                "or set MLFLOW_TRACKING_URI to the one to use and start the app again."
            ) from error


class Model:
    """A loaded version. Pictures go in as uint8 arrays of any size, answers come out; safe to share between threads.

    conformal: by promised coverage in per cent ("90", "95") the sum of probabilities up to which classes join a
    prediction set; unfamiliar_threshold: the highest probability below which a picture is unlike the training pictures,
    None where the version names none; flagged_familiar: the share of test pictures below it, None if not measured.
    """

    def __init__(self, version: Version, packaged: Any) -> None:
        """packaged: what `mlflow.pyfunc.load_model` returned; RegistryError if it is not one of this project's."""
        self.version = version
        self.packaged = packaged
        self.folder: tempfile.TemporaryDirectory[str] | None = None  # of its files, where they were fetched
        # One call at a time: Keras is not thread-safe, PyTorch takes all cores anyway. Always in the same thread: each
        # that a framework has worked in keeps memory.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="model")
        metadata = packaged.metadata.metadata or {}
        try:
            self.class_names = [readable(name) for name in metadata["class_names"]]
            superclass_names = [readable(name) for name in metadata["superclass_names"]]
            self.superclass_of = [superclass_names[index] for index in metadata["superclass_of_class"]]
            self.image_size = int(metadata["image_size"])
            self._shrink = packaged.unwrap_python_model().shrink
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise RegistryError(
                f"{_sentence(version)} lacks what this app needs ({reason(error)}): "
                f"{REGISTER_AGAIN}, or choose another model with MODEL_NAME."
            ) from error
        self.metadata: Mapping[str, Any] = metadata
        self.classifier = str(metadata.get("model", ""))
        self.test_accuracy = _number(metadata, "metrics", "test", "top1")
        self.unfamiliar_threshold = _number(metadata, "unfamiliar_threshold")
        self.flagged_familiar = _number(metadata, "metrics", "unfamiliar", "flagged_test")
        promised = metadata.get("conformal")
        found = {str(key): _number(promised, key) for key in promised} if isinstance(promised, dict) else {}
        self.conformal = {coverage: threshold for coverage, threshold in found.items() if threshold is not None}

    @property
    def is_demo(self) -> bool:
        """Whether it was trained on generated pictures: registered models are named after their data source."""
        return self.version.name.startswith("demo-")

    def sees(self, picture: np.ndarray) -> np.ndarray:
        """The picture as the model gets it. (H, W, 3) uint8 -> (image_size, image_size, 3) uint8.

        Waits for no other thread: the network has no part in it.
        """
        return self._run(lambda: np.asarray(self._shrink(picture[np.newaxis])), alone=False)[0]

    def probabilities(self, pictures: np.ndarray) -> np.ndarray:
        """Calibrated probabilities of pictures of one size, (N, H, W, 3) uint8: (N, C) float32, rows sum to 1."""
        found = self._run(lambda: np.asarray(self.packaged.predict(pictures)))
        if found.shape != (len(pictures), len(self.class_names)) or not np.isfinite(found).all():
            raise RegistryError(f"{_sentence(self.version)} gave no probabilities: {REGISTER_AGAIN}.")
        return found

    def answers(self, row: np.ndarray, top_k: int) -> list[Answer]:
        """The `top_k` likeliest classes by the probabilities of one picture, (C,), the likeliest first."""
        best = np.argsort(-row, kind="stable")[:top_k]
        return [Answer(self.class_names[i], self.superclass_of[i], float(row[i])) for i in best]

    def is_unfamiliar(self, row: np.ndarray) -> bool | None:
        """Whether a picture of these probabilities, (C,), is unlike the training pictures; None: it cannot tell."""
        return None if self.unfamiliar_threshold is None else float(row.max()) < self.unfamiliar_threshold

    def prediction_set(self, row: np.ndarray, coverage: str) -> list[str] | None:
        """The classes that together hold the right one in `coverage` ("90" or "95") per cent of pictures.

        row: the probabilities of one picture, (C,). The likeliest first, at least one; None where the version promises
        no such coverage. A class joins if the probabilities of those before it sum to at most the version's threshold.
        """
        threshold = self.conformal.get(coverage)
        if threshold is None:
            return None
        order = np.argsort(-row, kind="stable")
        before = np.cumsum(row[order], dtype=np.float64) - row[order]
        return [self.class_names[i] for i in order[before <= threshold]]

    def _run(self, work: Callable[[], Result], *, alone: bool = True) -> Result:
        try:
            return self._worker.submit(work).result() if alone else work()
        except Exception as error:  # packaged code: it may raise anything
            logger.warning("%s failed", self.version, exc_info=True)
            raise RegistryError(
                f"{_sentence(self.version)} failed on this picture ({reason(error)}): "
                f"try another picture; if it fails on all, {REGISTER_AGAIN}."
            ) from error


def connect() -> Registry:
    """The registry of MLFLOW_TRACKING_URI, else of mlflow.db at the repository root; asks nothing of it yet.

    Like the pipeline, it takes a relative SQLite path from the repository root, wherever the app was started.
    """
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow reads it while it is imported, which is later
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # MLflow's own patience, 7 retries with growing pauses, would leave a person waiting for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
    if uri.startswith(SQLITE):
        uri = f"{SQLITE}{_in_sqlite_uri(REPOSITORY) / uri.removeprefix(SQLITE)}"
    os.environ["MLFLOW_TRACKING_URI"] = uri  # for what MLflow looks up by itself while it loads a model
    return Registry(uri)


def wanted(champions: list[Version]) -> list[Version]:
    """The champions to choose from: the one that MODEL_NAME names, else all; RegistryError if it is not among them."""
    name = os.environ.get("MODEL_NAME")
    if not name:
        return champions
    named = [champion for champion in champions if champion.name == name]
    if not named:
        there_are = ", ".join(champion.name for champion in champions)
        raise RegistryError(
            f"MODEL_NAME is `{name}`, but the models with a champion are {there_are}: "
            "set it to one of these, or unset it, and start the app again."
        )
    return named


def load(version: Version) -> Model:
    """Download and load a version of the registry that `connect` gave; slow, it brings in the model's framework.

    RegistryError if it does not load.
    """
    from mlflow.models import Model as MlflowModel
    from mlflow.pyfunc import load_model
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    temporary = None
    try:
        repository = get_artifact_repository(f"models:/{version.name}/{version.number}")
        place = repository
        while hasattr(place, "repo"):  # of a registered model, the place its files are in
            place = place.repo
        if not isinstance(place, LocalArtifactRepository):  # whose files are read where they are
            temporary = tempfile.TemporaryDirectory(prefix="model-")  # goes with the model
        folder = repository.download_artifacts("", dst_path=temporary.name if temporary else None)
        about = MlflowModel.load(folder).metadata or {}
        others = [name for name, tag in REGISTERED.items() if about.get(tag) != version.tags.get(tag, about.get(tag))]
        if others:  # before any of its code runs
            raise RegistryError(f"Its {' and '.join(others)} are not what was registered")
        packaged = load_model(folder, suppress_warnings=True)
    except Exception as error:  # the network, the disk, and the code that came with the model
        logger.warning("%s does not load", version, exc_info=True)
        raise RegistryError(
            f"{_sentence(version)} does not load ({reason(error)}): install requirements.txt here, or {REGISTER_AGAIN}."
        ) from error
    model = Model(version, packaged)
    model.folder = temporary
    return model


def without_password(uri: str) -> str:
    """A URI as it may be shown on a page."""
    return re.sub(r"//[^/\s]*@", "//", uri)


def _in_sqlite_uri(folder: Path) -> Path:
    """A folder as it stands in a URI: SQLAlchemy takes what follows a question mark for options, and decodes %."""
    return Path(str(folder).replace("%", "%25").replace("?", "%3F"))


def _versions(client: "MlflowClient", name: str) -> "Iterator[ModelVersion]":
    """All versions of a registered model."""
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _reigns(version: Version) -> list[Reign]:
    """Those that the tags of a version tell of; the earlier ones stand in one tag, as JSON."""
    tags = version.tags
    if "promoted_at" not in tags:
        return []
    lasts = CHAMPION in version.aliases
    until = "" if lasts else tags.get("demoted_at", "")
    reigns = [Reign(version, tags["promoted_at"], until, rolled_back=not lasts and "rolled_back_at" in tags)]
    with suppress(ValueError, TypeError):  # a tag that somebody else wrote
        earlier = json.loads(tags.get("earlier_reigns", "[]"))
        reigns += [Reign(version, str(since), str(until), bool(back)) for since, until, back in earlier]
    return reigns


def _is_missing(error: Exception) -> bool:
    return getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST"


def _seconds(promoted_at: str | None) -> float:
    """The tag promoted_at, ISO 8601."""
    try:
        return datetime.fromisoformat(promoted_at or "").timestamp()
    except ValueError:
        return 0


def _number(metadata: Any, *keys: str) -> float | None:
    for key in keys:
        metadata = metadata.get(key) if isinstance(metadata, dict) else None
    return float(metadata) if isinstance(metadata, int | float) else None


def readable(name: str) -> str:
    """The name of a class as people read it."""
    return name.replace("_", " ")


def _sentence(version: Version) -> str:
    return str(version)[0].upper() + str(version)[1:]


def reason(error: Exception) -> str:
    """What happened at bottom, short, as Markdown code so that nothing in it is taken for markup."""
    from requests.exceptions import ConnectionError, Timeout  # noqa: A004

    if isinstance(error.__context__, Timeout | ConnectionError):
        return "no connection"
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    line = " ".join(f"{type(cause).__name__}: {cause}".split()).removesuffix(":")
    line = without_password(line).replace("`", "'")
    return f"`{line if len(line) <= 160 else line[:159] + '…'}`"
