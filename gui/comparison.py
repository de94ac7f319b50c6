"""The comparison that a registered version came from, as its MLflow run holds it: verdict, tables, the test images.

Knows nothing of Streamlit. Whatever keeps a part of it away is a ComparisonError.
"""

import json
import logging
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gui.registry import Version, reason

if TYPE_CHECKING:
    import pandas as pd

RUN_TAG = "comparison_run_id"  # of a version
KEPT_AT_ONCE = 3  # comparisons whose downloaded files are kept
COLUMNS = {  # of each table, beside `model`
    "summary": ("top1", "low", "high", "superclass_top1", "ece", "milliseconds", "minutes", "megabytes"),
    "curves": ("epoch", "seconds", "val_loss", "val_top1"),
    "steps": ("step", "seconds", "train_loss", "train_top1"),
    "superclasses": ("actual", "predicted", "images", "share"),
    "reliability": ("calibration", "confidence", "accuracy", "images"),
    "robustness": ("corruption", "severity", "top1"),
}
LOG_AGAIN = "log one with `make register` (a demo model: `make demo`)"

logger = logging.getLogger(__name__)
_opening = threading.Lock()


class ComparisonError(Exception):
    """A comparison, or a part of one, that is not there. One line of Markdown: what is missing, what to do."""


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turns what is wrong with the content of a file of the run into a ComparisonError."""
    try:
        yield
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ComparisonError(
            f"`{path}` of the comparison is damaged or of another version of this project ({reason(error)}): "
            f"{LOG_AGAIN}."
        ) from error


class TopPredictions(NamedTuple):
    """What a model predicts for each test image.

    predicted: (N,) int64, the likeliest class; confidence: (N,) float32, its calibrated probability.
    """

    predicted: np.ndarray
    confidence: np.ndarray


class ImageExplorer:
    """The test images and what each model predicts for them; arrays are memory-mapped.

    images: (N, H, W, 3) uint8; labels: (N,) int64. class_names and superclass_names: as people read them;
    superclass_index: (C,) int64, the superclass of each class. models: in the comparison's order.
    """

    def __init__(self, fetch: Callable[[str], Path]) -> None:
        """fetch: gives the local file of a path in the run."""
        self._fetch = fetch
        self._predictions: dict[str, TopPredictions] = {}
        path = fetch("explorer/dataset.json")
        with _reading("explorer/dataset.json"):
            described = json.loads(path.read_text(encoding="utf-8"))
            self.models = [str(model) for model in described["models"]]
            self.class_names: list[str] = _readable(described["class_names"])
            self.superclass_names: list[str] = _readable(described["superclass_names"])
            self.superclass_index = np.asarray(described["superclass_of_class"], np.int64)
        self.images = self._array("images", np.uint8, (..., ..., ..., 3))
        self.labels = self._array("labels", np.int64, (len(self.images),))
        with _reading("explorer/labels.npy"):
            if not 0 <= self.labels.min() <= self.labels.max() < len(self.class_names) == len(self.superclass_index):
                raise ValueError(f"labels up to {self.labels.max()}")

    def predictions(self, model: str) -> TopPredictions:
        """The likeliest class of every test image by a model; computed once."""
        if model not in self._predictions:
            shape = len(self.labels), len(self.class_names)
            probabilities = self._array(f"probabilities-{model}", np.float16, shape)
            predicted = probabilities.argmax(axis=1)
            confidence = probabilities[np.arange(len(predicted)), predicted].astype(np.float32)
            self._predictions[model] = TopPredictions(predicted, confidence)
        return self._predictions[model]

    def _array(self, name: str, dtype: type, shape: tuple[Any, ...]) -> np.ndarray:
        """shape: an Ellipsis where any length will do."""
        path = f"explorer/{name}.npy"
        file = self._fetch(path)
        with _reading(path):
            array = np.load(file, mmap_mode="r", allow_pickle=False)
            fits = len(array.shape) == len(shape) and all(
                b in (..., a) for a, b in zip(array.shape, shape, strict=True)
            )
            if array.dtype != dtype or not fits or not array.size:
                raise ValueError(f"{array.dtype} {array.shape}")
        return array


class LoggedComparison:
    """A comparison's run. Its files are fetched when they are asked for, once; in a local store they stay in place.

    models: in the ranking's order, the best on test first; verdict: Markdown.
    """

    def __init__(self, tracking_uri: str, run_id: str) -> None:
        """ComparisonError where there is no such run, or it holds no comparison that this app can read."""
        from mlflow import MlflowClient
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
        from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

        self.run_id = run_id
        self._files: dict[str, Path] = {}
        self._explorer: ImageExplorer | None = None
        self._one_at_a_time = threading.RLock()
        try:
            run = MlflowClient(tracking_uri=tracking_uri).get_run(run_id)
            self._artifacts = get_artifact_repository(run.info.artifact_uri, tracking_uri=tracking_uri)
        except Exception as error:  # of requests, SQLAlchemy, MLflow, the libraries of an artifact store
            logger.warning("the comparison %s cannot be opened", run_id, exc_info=True)
            raise ComparisonError(
                f"The comparison of this model, run `{run_id}`, cannot be opened ({reason(error)}): {LOG_AGAIN}."
            ) from error
        if run.info.lifecycle_stage != "active":
            raise ComparisonError(f"The comparison of this model, run `{run_id}`, was deleted: {LOG_AGAIN}.")
        # Goes with this object; what is mapped from it stays readable.
        is_local = isinstance(self._artifacts, LocalArtifactRepository)
        self._folder = None if is_local else tempfile.TemporaryDirectory(prefix="comparison-")
        file = self._fetch("comparison.json")
        with _reading("comparison.json"):
            content = json.loads(file.read_text(encoding="utf-8"))
            self.verdict = str(content["verdict"])
            self.models = [str(ranked["model"]) for ranked in content["ranking"]]

    @property
    def report(self) -> str:
        """comparison.md."""
        file = self._fetch("comparison.md")
        with _reading("comparison.md"):
            return file.read_text(encoding="utf-8")

    def table(self, name: str) -> "pd.DataFrame":
        """One of the tables, see COLUMNS, its models in the order of `models`; names as people read them."""
        import pandas as pd

        path = f"tables/{name}.csv"
        file = self._fetch(path)
        with _reading(path):
            found = pd.read_csv(file)
            if missing := {"model", *COLUMNS[name]} - set(found):
                raise ValueError(f"no column {', '.join(sorted(missing))}")
        for column in {"actual", "predicted"} & set(found):
            found[column] = _readable(found[column].tolist())
        place = {model: place for place, model in enumerate(self.models)}
        return found.sort_values("model", key=lambda models: models.map(place), kind="stable", ignore_index=True)

    def explorer(self) -> ImageExplorer:
        """The test images; about 40 MB to fetch the first time where the store is not on this machine."""
        with self._one_at_a_time:
            self._explorer = self._explorer or ImageExplorer(self._fetch)
            return self._explorer

    def _fetch(self, path: str) -> Path:
        """The local file of a path in the run."""
        with self._one_at_a_time:
            if path not in self._files:
                try:
                    folder = None if self._folder is None else self._folder.name
                    self._files[path] = Path(self._artifacts.download_artifacts(path, folder))
                except Exception as error:  # as above
                    logger.warning("%s of the comparison %s is out of reach", path, self.run_id, exc_info=True)
                    raise ComparisonError(
                        f"`{path}` of the comparison is out of reach ({reason(error)}): "
                        f"see that its store answers, or {LOG_AGAIN}."
                    ) from error
            return self._files[path]


def of(version: Version) -> LoggedComparison:
    """The comparison that a version was registered with, opened once; ComparisonError where there is none."""
    run_id = version.tags.get(RUN_TAG)
    if not run_id:
        raise ComparisonError(f"No comparison was logged with {version}: {LOG_AGAIN}.")
    with _opening:
        return _open(version.tracking_uri, run_id)


@lru_cache(maxsize=KEPT_AT_ONCE)
def _open(tracking_uri: str, run_id: str) -> LoggedComparison:
    return LoggedComparison(tracking_uri, run_id)


def _readable(names: list[Any]) -> list[str]:
    """The names of classes as people read them."""
    return [str(name).replace("_", " ") for name in names]
