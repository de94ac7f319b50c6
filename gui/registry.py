"""Registered models: which one is served, and the loaded model. Knows nothing of Streamlit.

Whatever goes wrong between here and the tracking server is a RegistryError of one line that says what to do.
"""

import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import unquote

import numpy as np

from stages.common.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from mlflow.pyfunc import PyFuncModel

REPOSITORY = Path(__file__).resolve().parents[1]
SQLITE = "sqlite:///"
CHAMPION = "champion"
HISTORY = "champion_history"  # tag of a registered model: JSON, oldest first, [{"version", "since", "by"}, ...]
DECISION = "decision"  # tag of a version: the sentence that made it champion, or did not
TOP_K = 5  # classes of an image by default
HOW_TO_MAKE_ONE = (
    "`dvc repro` trains and registers one, `make demo` a small one on generated images within minutes, and "
    "`make register` brings back one that was trained here"
)
REGISTER_AGAIN = "register it again with `make register` (a demo model: `make demo`)"
Square = Literal["crop", "pad"]  # what is done with images that are not: keep the centre, or all, with white borders

logger = logging.getLogger(__name__)


class RegistryError(UserError):
    """No model, or none that works. The message is one line of Markdown: what is wrong, what to do."""


@dataclass(frozen=True)
class Version:
    """One version of a registered model; equal, with the same repr, if they name one version of one registry.

    created: milliseconds since 1970; tells apart versions of the same number in a registry that was made anew.
    tags, description, aliases, run_id (of the training): as they were when the registry was asked.
    """

    tracking_uri: str
    name: str
    number: int
    created: int
    tags: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    description: str = field(default="", compare=False, repr=False)
    aliases: tuple[str, ...] = field(default=(), compare=False, repr=False)
    run_id: str = field(default="", compare=False, repr=False)

    def __str__(self) -> str:
        return f"version {self.number} of {self.name}"


class ChampionPeriod(NamedTuple):
    """A time for which a version was champion.

    version: its number; model: its network, None where it was deleted. since, until: ISO 8601; until: empty where it
    lasts. rolled_back: whether a person put another version in its place. decision: the sentence that made it champion;
    empty for all but the last period of a version.
    """

    version: str
    model: str | None
    since: str
    until: str
    rolled_back: bool
    decision: str


class ModelRegistry:
    """The model registry of a tracking server or database."""

    def __init__(self, tracking_uri: str) -> None:
        """tracking_uri: as MLflow takes it, absolute if it is a path; see `connect`."""
        self.tracking_uri = tracking_uri
        self._shown_uri = without_password(tracking_uri)

    def champions(self) -> list[Version]:
        """The champions to choose from, the one promoted last first; RegistryError if there is none.

        They are those of all registered models, or the one of the model that MODEL_NAME names.
        """
        wanted = os.environ.get("MODEL_NAME")
        with self._asked() as client:
            registered = list(_pages(client.search_registered_models))
            champions = [
                self._version(client.get_model_version(model.name, str(model.aliases[CHAMPION])), model)
                for model in sorted(registered, key=_promoted, reverse=True)
                if CHAMPION in model.aliases
            ]
        if not registered:
            raise RegistryError(f"No model is registered yet at `{self._shown_uri}`: {HOW_TO_MAKE_ONE}.")
        if not champions:
            there_are = ", ".join(model.name for model in registered)
            raise RegistryError(f"No version of {there_are} is champion: `make register` chooses one again.")
        names = [champion.name for champion in champions]
        if wanted and wanted not in names:
            raise RegistryError(
                f"MODEL_NAME is `{wanted}`, but the models with a champion are {', '.join(names)}: "
                "set it to one of these, or unset it, and start again."
            )
        return [champion for champion in champions if wanted in (None, "", champion.name)]

    def rivals(self, name: str) -> dict[str, Version]:
        """The versions of a registered model that have an alias, the champion first, each under one of its aliases."""
        _, versions = self._versions(name)
        found = {}
        for version in sorted(versions.values(), key=lambda each: (CHAMPION not in each.aliases, -each.number)):
            if version.aliases:
                # A version's own name says more than challenger, a role that several have had.
                ranks = {CHAMPION: 0, version.tags.get("model"): 1}
                found[min(version.aliases, key=lambda alias: (ranks.get(alias, 2), alias))] = version
        return found

    def version(self, name: str, alias_or_number: str | int) -> Version:
        """A version of a registered model by one of its aliases or by its number; RegistryError if there is none."""
        model, versions = self._versions(name)
        number = str(model.aliases.get(str(alias_or_number), alias_or_number))
        if not number.isdecimal() or int(number) not in versions:
            there_are = ", ".join([*sorted(model.aliases), *map(str, sorted(versions))]) or "none"
            raise RegistryError(f"{name} has no version `{alias_or_number}`: choose one of {there_are}.")
        return versions[int(number)]

    def history(self, name: str) -> list[ChampionPeriod]:
        """The champions of a registered model, the last one first; of an older store the present one alone."""
        model, versions = self._versions(name)
        periods = _periods(model)
        if not periods and CHAMPION in model.aliases:
            champion = versions[int(model.aliases[CHAMPION])]
            periods = [(champion.number, champion.tags.get("promoted_at", ""), False)]
        found = []
        for index, (number, since, _) in enumerate(periods):
            later = periods[index + 1 :]
            _, until, rolled_back = later[0] if later else (0, "", False)
            tags = versions[number].tags if number in versions else {}
            decision = "" if number in [each[0] for each in later] else tags.get(DECISION, "")
            found.append(ChampionPeriod(str(number), tags.get("model"), since, until, rolled_back, decision))
        return found[::-1]

    def training(self, version: Version) -> "Run":
        """The run that trained a version, with metrics such as `test/top1`; RegistryError where it is gone."""
        gone = f"The run that trained {version} is gone: `make register` brings it back where it was trained."
        if not version.run_id:
            raise RegistryError(gone)
        with self._asked(missing=gone) as client:
            return client.get_run(version.run_id)

    def address(self, place: str) -> str | None:
        """The address of a place among MLflow's pages; None where no server shows them."""
        is_server = self.tracking_uri.startswith("http")
        return f"{self._shown_uri.rstrip('/')}/#/{place}" if is_server else None

    @property
    def ui_command(self) -> str:
        """What starts MLflow's pages for a database on this machine."""
        default = f"{SQLITE}{_in_sqlite_uri(REPOSITORY)}/mlflow.db"
        return "mlflow ui" if self.tracking_uri == default else f"mlflow ui --backend-store-uri '{self._shown_uri}'"

    def _versions(self, name: str) -> "tuple[RegisteredModel, dict[int, Version]]":
        """A registered model and its versions by number: two requests, however many there are."""
        missing = f"No model `{name}` is registered at `{self._shown_uri}`: {HOW_TO_MAKE_ONE}."
        with self._asked(missing) as client:
            model = client.get_registered_model(name)
            found = _pages(client.search_model_versions, f"name = '{name}'")
            return model, {int(version.version): self._version(version, model) for version in found}

    def _version(self, found: "ModelVersion", model: "RegisteredModel") -> Version:
        return Version(
            self.tracking_uri,
            found.name,
            int(found.version),
            created=found.creation_timestamp or 0,
            tags=dict(found.tags),
            description=found.description or "",
            aliases=tuple(sorted(alias for alias, of in model.aliases.items() if str(of) == str(found.version))),
            run_id=found.run_id or "",
        )

    @contextmanager
    def _asked(self, missing: str = "") -> "Iterator[MlflowClient]":
        """A client of the tracking server; whatever keeps it from answering is a RegistryError.

        missing: its message where what is asked for does not exist.
        """
        database = Path(unquote(self.tracking_uri.removeprefix(SQLITE).split("?")[0]))
        if self.tracking_uri.startswith(SQLITE) and not database.exists():  # MLflow would create it
            raise RegistryError(f"No model is registered yet, `{database}` does not exist: {HOW_TO_MAKE_ONE}.")
        try:
            from mlflow import MlflowClient  # takes seconds: the page is drawn before

            yield MlflowClient(tracking_uri=self.tracking_uri)
        except Exception as error:  # of requests, SQLAlchemy, MLflow: what to do is the same
            if missing and getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST":
                raise RegistryError(missing) from None
            logger.warning("%s does not answer", self._shown_uri, exc_info=True)
            raise RegistryError(
                f"MLflow does not answer at `{self._shown_uri}` ({reason(error)}): start its server, "
                "or set MLFLOW_TRACKING_URI to the one to use and start again."
            ) from error


class Model:
    """A loaded version: it predicts by its own code, an ImageClassifier. Threads may share it.

    packaged: MLflow's model; classifier: within it. name: of the network, vit_scratch; class_names: as people read
    them; square: its own rule for images that are not; ood: score, threshold below which an image counts as out of
    distribution, None where it cannot tell, and the reason; ood_flagged: the share of test images below it;
    test_accuracy: top-1; both None where not measured.
    """

    def __init__(self, version: Version, packaged: "PyFuncModel") -> None:
        self.version, self.packaged = version, packaged
        self.classifier: Any = packaged.unwrap_python_model().classifier
        self.metadata: Mapping[str, Any] = self.classifier.metadata
        self.name = str(self.metadata.get("model", ""))
        self.class_names: list[str] = self.classifier.class_names.tolist()
        self.square: Square = self.metadata["square"]
        self.ood: Mapping[str, Any] = self.metadata["ood"]
        metrics = self.metadata.get("metrics", {})
        self.ood_flagged: float | None = metrics.get("ood", {}).get("flagged_test")
        self.test_accuracy: float | None = metrics.get("test", {}).get("top1")

    def prepare(self, image: np.ndarray, square: Square | None = None) -> np.ndarray:
        """The image as the network gets it: (H, W, 3) uint8 -> (S, S, 3) uint8, made square as `square` says.

        None: by the version's own rule.
        """
        with self._running():
            return self.classifier.prepare(image[np.newaxis], square)[0]

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Calibrated probabilities of images of one size, (N, H, W, 3) uint8: (N, C) float32, rows sum to 1."""
        return self._run(self.classifier.probabilities, images)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Their logarithms up to a constant for each image: (N, C) float32."""
        return self._run(self.classifier.logits, images)

    def _run(self, network: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> np.ndarray:
        with self._running():
            found = network(images)
        if found.shape != (len(images), len(self.class_names)) or not np.isfinite(found).all():
            raise RegistryError(f"{_sentence(self.version)} gave no probabilities: {REGISTER_AGAIN}.")
        return found

    def rows(self, logits: np.ndarray, top_k: int) -> list[list[dict[str, Any]]]:
        """`top_k` rows for each row of `logits`, (N, C), see COLUMNS in stages/inference/onnx_model.py."""
        with self._running():
            rows = self.classifier.rows(logits, top_k).to_dict("records")
        return [rows[start : start + top_k] for start in range(0, len(rows), top_k)]

    def top_k(self, asked: int | None) -> int:
        """How many rows an image gets; None: TOP_K, or all classes if fewer. UserError where there are not so many."""
        known = len(self.class_names)
        if asked is not None and not 1 <= asked <= known:
            raise UserError(f"top_k = {asked}: ask for 1 to {known} classes")
        return asked or min(TOP_K, known)

    @contextmanager
    def _running(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # code of the version: it may raise anything
            logger.warning("%s failed", self.version, exc_info=True)
            raise RegistryError(
                f"{_sentence(self.version)} failed on this image ({reason(error)}): "
                f"try another image; if it fails on all, {REGISTER_AGAIN}."
            ) from error


def connect() -> ModelRegistry:
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
    return ModelRegistry(uri)


def load(version: Version, threads: int | None = None) -> Model:
    """Download and load a version of the registry that `connect` gave; RegistryError if it does not load.

    None of its code runs before its metadata say a format that is known here. threads: None for all cores.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.models import Model as MlflowModel
    from mlflow.pyfunc import load_model

    try:
        # A copy, also of files on this machine: MLflow would add a file of its own to them.
        with tempfile.TemporaryDirectory(prefix="model-") as temporary:
            folder = Path(download_artifacts(f"models:/{version.name}/{version.number}", dst_path=temporary))
            _check(version, MlflowModel.load(folder).metadata or {})
            packaged = load_model(str(folder), suppress_warnings=True)
            model = Model(version, packaged)
            if threads:
                network = type(model.classifier.network)
                model.classifier.network = network(folder / "artifacts" / "model.onnx", threads)
            return model
    except RegistryError:
        raise
    except Exception as error:  # the network, the disk, and the code that came with the model
        logger.warning("%s does not load", version, exc_info=True)
        raise RegistryError(
            f"{_sentence(version)} does not load ({reason(error)}): install requirements-serve.txt here, "
            f"or {REGISTER_AGAIN}."
        ) from error


def _check(version: Version, metadata: Mapping[str, Any]) -> None:
    """RegistryError where a version is not one that this release registers; its own code checks its model.onnx."""
    from stages.inference.onnx_model import FORMAT  # imports the runtime, which takes its time

    written = metadata.get("format")
    if written != FORMAT or "onnx_sha256" not in metadata:
        is_newer = isinstance(written, int) and written > FORMAT
        by = "a newer release of this project" if is_newer else "an earlier release of this project or another tool"
        remedy = "update this app" if is_newer else REGISTER_AGAIN
        raise RegistryError(
            f"{_sentence(version)} was registered by {by} (format {written}, known here: {FORMAT}): {remedy}, "
            "or choose another model with MODEL_NAME."
        )
    registered = version.tags.get("onnx_sha256", metadata["onnx_sha256"])
    if registered != metadata["onnx_sha256"]:
        raise RegistryError(
            f"The files of {version} are not those that were registered (sha256 {metadata['onnx_sha256'][:12]}..., "
            f"expected {registered[:12]}...): {REGISTER_AGAIN}."
        )


def without_password(uri: str) -> str:
    """A URI as it may be shown on a page."""
    return re.sub(r"//[^/\s]*@", "//", uri)


def _in_sqlite_uri(folder: Path) -> Path:
    """A folder as it stands in a URI: SQLAlchemy takes what follows a question mark for options, and decodes %."""
    return Path(str(folder).replace("%", "%25").replace("?", "%3F"))


def _pages(search: Callable[..., Any], *asked: str) -> Iterator[Any]:
    """All that a search of MLflow's client finds, page after page."""
    page = search(*asked)
    yield from page
    while page.token:
        page = search(*asked, page_token=page.token)
        yield from page


def _periods(model: "RegisteredModel") -> list[tuple[int, str, bool]]:
    """Of the tag HISTORY, the oldest first: number, since, whether by hand; none where somebody else wrote the tag."""
    with suppress(ValueError, TypeError, KeyError):
        entries = json.loads(model.tags.get(HISTORY, "[]"))
        return [(int(entry["version"]), str(entry["since"]), entry["by"] == "hand") for entry in entries]
    return []


def _promoted(model: "RegisteredModel") -> float:
    """When a registered model got its present champion, in seconds since 1970; 0 where it does not say."""
    with suppress(ValueError, IndexError):
        return datetime.fromisoformat(_periods(model)[-1][1]).timestamp()
    return 0


def _sentence(version: Version) -> str:
    return str(version)[0].upper() + str(version)[1:]


def reason(error: Exception) -> str:
    """The first cause of an error, short, as Markdown code so that nothing in it is taken for markup."""
    from requests.exceptions import ConnectionError, Timeout  # noqa: A004

    if isinstance(error.__context__, Timeout | ConnectionError):
        return "no connection"
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    line = " ".join(f"{type(cause).__name__}: {cause}".split()).removesuffix(":")
    line = without_password(line).replace("`", "'")
    return f"`{line if len(line) <= 160 else line[:159] + '…'}`"
