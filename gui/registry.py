"""Registered models, as the app needs them: which one answers, and the loaded model. Knows nothing of Streamlit.

Everything that can go wrong between here and the tracking server is a RegistryError of one line that names the way on.
"""

import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import unquote

import numpy as np

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

REPOSITORY = Path(__file__).resolve().parents[1]
SQLITE = "sqlite:///"
CHAMPION = "champion"
FORMAT = 2  # of a version's metadata: the newest that this app knows; see stages/inference/onnx_model.py
HOW_TO_MAKE_ONE = (
    "`dvc repro` trains and registers one, `make demo` a small one on generated pictures within minutes, and "
    "`make register` brings back one that was trained here"
)
REGISTER_AGAIN = "register it again with `make register` (a demo model: `make demo`)"
Square = Literal["crop", "pad"]  # what is done with images that are not: keep the centre, or all, with white borders

logger = logging.getLogger(__name__)


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


class Answer(NamedTuple):
    """One class and its probability, between 0 and 1."""

    class_name: str
    superclass_name: str
    probability: float


class Classified(NamedTuple):
    """What a model says of one image. Names are as people read them.

    answers: the likeliest classes, the likeliest first; prediction_set: the classes that hold the right one in 90 of
    100 images, the likeliest first; out_of_distribution: unlike the training images, None where the model cannot tell.
    """

    answers: list[Answer]
    prediction_set: list[str]
    out_of_distribution: bool | None


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
    """A loaded version: what its own ImageClassifier answers, as this app shows it. Threads may share it.

    name: of the network, vit_scratch; class_names: as people read them; square: its own rule for images that are not;
    ood_threshold: the highest probability below which an image counts as out of distribution, None where it cannot
    tell; ood_flagged: the share of test images below it, test_accuracy: their top-1; both None where not measured.
    """

    def __init__(self, version: Version, packaged: Any, folder: "tempfile.TemporaryDirectory[str] | None") -> None:
        """packaged: what `mlflow.pyfunc.load_model` returned; folder: of its files, where they were fetched.

        RegistryError if it is not one of this project's.
        """
        self.version = version
        self.packaged = packaged
        self._folder = folder  # goes with the model
        try:
            self._classifier = packaged.unwrap_python_model().classifier
            metadata = self._classifier.metadata
            self.class_names = [readable(name) for name in metadata["class_names"]]
            self.square: Square = metadata["square"]
        except (KeyError, TypeError, AttributeError) as error:
            raise RegistryError(
                f"{_sentence(version)} lacks what this app needs ({reason(error)}): "
                f"{REGISTER_AGAIN}, or choose another model with MODEL_NAME."
            ) from error
        self.name = str(metadata.get("model", ""))
        self.ood_threshold = _number(metadata, "ood_threshold")
        self.ood_flagged = _number(metadata, "metrics", "unfamiliar", "flagged_test")
        self.test_accuracy = _number(metadata, "metrics", "test", "top1")

    @property
    def is_demo(self) -> bool:
        """Whether it was trained on generated images: registered models are named after their data source."""
        return self.version.name.startswith("demo-")

    def prepare(self, image: np.ndarray, square: Square | None = None) -> np.ndarray:
        """The image as the network gets it: (H, W, 3) uint8 -> (S, S, 3) uint8, made square as `square` says.

        None: by the version's own rule.
        """
        with self._running():
            return self._classifier.prepare(image[np.newaxis], square)[0]

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Calibrated probabilities of images of one size, (N, H, W, 3) uint8: (N, C) float32, rows sum to 1."""
        with self._running():
            found = self._classifier.probabilities(images)
        if found.shape != (len(images), len(self.class_names)) or not np.isfinite(found).all():
            raise RegistryError(f"{_sentence(self.version)} gave no probabilities: {REGISTER_AGAIN}.")
        return found

    def classified(self, probabilities: np.ndarray, top_k: int) -> list[Classified]:
        """What the version says of each image, by its row of probabilities (N, C); top_k: classes, at most all."""
        top_k = min(top_k, len(self.class_names))
        with self._running():
            rows = self._classifier.rows(probabilities, top_k)
        columns = (rows[name].tolist() for name in ("class", "superclass", "probability"))
        answers = [Answer(*each) for each in zip(*columns, strict=True)]
        of_image = zip(rows["prediction_set"][::top_k], rows["out_of_distribution"][::top_k], strict=True)
        return [
            Classified(answers[place * top_k : (place + 1) * top_k], names, is_outside)
            for place, (names, is_outside) in enumerate(of_image)
        ]

    @contextmanager
    def _running(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # code of the version: it may raise anything
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
    """Download and load a version of the registry that `connect` gave; RegistryError if it does not load.

    None of its code runs before its metadata and its model.onnx are what was registered, and of a format known here.
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
            temporary = tempfile.TemporaryDirectory(prefix="model-")
        folder = Path(repository.download_artifacts("", dst_path=temporary.name if temporary else None))
        _check(version, MlflowModel.load(folder).metadata or {}, folder / "artifacts" / "model.onnx")
        packaged = load_model(str(folder), suppress_warnings=True)
    except RegistryError:
        raise
    except Exception as error:  # the network, the disk, and the code that came with the model
        logger.warning("%s does not load", version, exc_info=True)
        raise RegistryError(
            f"{_sentence(version)} does not load ({reason(error)}): install requirements-serve.txt here, "
            f"or {REGISTER_AGAIN}."
        ) from error
    return Model(version, packaged, temporary)


def _check(version: Version, metadata: Mapping[str, Any], file: Path) -> None:
    """RegistryError where a version is of another release of this project, or its file is not what was registered."""
    written = metadata.get("format")
    if not isinstance(written, int) or written < FORMAT or "onnx_sha256" not in metadata:
        raise RegistryError(
            f"{_sentence(version)} was registered by an earlier release of this project: {REGISTER_AGAIN}, "
            "or choose another model with MODEL_NAME."
        )
    if written > FORMAT:
        raise RegistryError(
            f"{_sentence(version)} was registered by a newer release of this project (format {written}, this app knows "
            f"up to {FORMAT}): update this app, or {REGISTER_AGAIN}."
        )
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    for expected in (metadata["onnx_sha256"], version.tags.get("onnx_sha256", found)):
        if found != expected:
            raise RegistryError(
                f"{file.name} of {version} is not what was registered (sha256 {found[:12]}..., expected "
                f"{expected[:12]}...): {REGISTER_AGAIN}."
            )


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
