"""The comparison that a registered version came from, as its run holds it: verdict, tables, the test pictures.

Knows nothing of Streamlit. Whatever keeps a part of it away is a ComparisonError.
"""

import json
import logging
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gui.registry import Version, readable, reason

if TYPE_CHECKING:
    import pandas as pd

RUN_TAG = "comparison_run_id"  # of a version
KEPT_AT_ONCE = 3  # comparisons whose downloaded files are kept
COLUMNS = {  # of each table, beside `model`
    "curves": ("epoch", "seconds", "val_loss", "val_top1"),
    "steps": ("step", "seconds", "train_loss", "train_top1"),
    "classes": ("class", "superclass", "top1"),
    "superclasses": ("actual", "predicted", "pictures", "share"),
    "reliability": ("calibration", "confidence", "accuracy", "pictures"),
    "robustness": ("corruption", "severity", "top1"),
}
LOG_AGAIN = "log one with `make register` (a demo model: `make demo`)"

logger = logging.getLogger(__name__)
_opening = threading.Lock()


class ComparisonError(Exception):
    """A comparison, or a part of one, that is not there. One line of Markdown: what is missing, what to do."""


@dataclass(frozen=True)
class Answers:
    """What a model says of each test picture.

    predicted: (N,) int64, the likeliest class; confidence: (N,) float32, its calibrated probability.
    """

    predicted: np.ndarray
    confidence: np.ndarray


class Explorer:
    """The test pictures and what each model says of them; arrays are memory-mapped.

    images: (N, H, W, 3) uint8; labels: (N,) int64. class_names and superclass_names: as people read them;
    superclass_index: (C,) int64, superclass_of: the superclass of each class. models: in the comparison's order.
    """

    def __init__(self, fetch: Callable[[str], Path]) -> None:
        """fetch: gives the local file of a path in the run."""
        self._fetch = fetch
        try:
            described = json.loads(fetch("explorer/dataset.json").read_text(encoding="utf-8"))
            self.models = [str(model) for model in described["models"]]
            self.class_names = [readable(name) for name in described["class_names"]]
            self.superclass_names = [readable(name) for name in described["superclass_names"]]
            self.superclass_index = np.asarray(described["superclass_of_class"], np.int64)
            self.superclass_of = [self.superclass_names[index] for index in self.superclass_index]
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise _other_layout("explorer/dataset.json", error) from error
        self.images = self._array("images", np.uint8, 4)
        self.labels = self._array("labels", np.int64, 1)
        if len(self.images) != len(self.labels) or self.images.shape[3] != 3 or len(self.labels) == 0:
            raise _other_layout("explorer/images.npy", f"{self.images.shape} for {len(self.labels)} labels")
        if not 0 <= self.labels.min() <= self.labels.max() < len(self.class_names) == len(self.superclass_index):
            raise _other_layout("explorer/labels.npy", f"labels up to {self.labels.max()}")
        self._answers: dict[str, Answers] = {}

    def probabilities(self, model: str) -> np.ndarray:
        """Calibrated probabilities of a model for every test picture, (N, C) float16."""
        found = self._array(f"probabilities-{model}", np.float16, 2)
        if found.shape != (len(self.labels), len(self.class_names)):
            raise _other_layout(f"explorer/probabilities-{model}.npy", f"{found.shape}")
        return found

    def answers(self, model: str) -> Answers:
        """The likeliest class of every test picture by a model; found once."""
        if model not in self._answers:
            probabilities = self.probabilities(model)
            predicted = probabilities.argmax(axis=1)
            confidence = probabilities[np.arange(len(predicted)), predicted].astype(np.float32)
            self._answers[model] = Answers(predicted, confidence)
        return self._answers[model]

    def _array(self, name: str, dtype: type, dimensions: int) -> np.ndarray:
        file = self._fetch(f"explorer/{name}.npy")
        try:
            array = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise _other_layout(f"explorer/{name}.npy", error) from error
        if array.dtype != dtype or array.ndim != dimensions:
            raise _other_layout(f"explorer/{name}.npy", f"{array.dtype} {array.shape}")
        return array


class Comparison:
    """A comparison's run. Its files are fetched when they are asked for, once; in a local store they stay in place.

    data: comparison.json; models: in its ranking's order, the best on the test pictures first; verdict: Markdown.
    """

    def __init__(self, tracking_uri: str, run_id: str) -> None:
        """ComparisonError where there is no such run, or it holds no comparison that this app can read."""
        from mlflow import MlflowClient
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
        from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

        self.run_id = run_id
        self._files: dict[str, Path] = {}
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
        self.data: Mapping[str, Any] = self._json("comparison.json")
        try:
            self.verdict = str(self.data["verdict"])
            self.models = [str(ranked["model"]) for ranked in self.data["ranking"]]
        except (KeyError, TypeError) as error:
            raise _other_layout("comparison.json", error) from error

    @property
    def report(self) -> str:
        """comparison.md."""
        return self._text("comparison.md")

    @property
    def robustness(self) -> dict[str, Any]:
        """robustness.json: by model."""
        return self._json("robustness.json")

    def metrics(self, model: str) -> dict[str, Any]:
        """metrics/<model>.json."""
        return self._json(f"metrics/{model}.json")

    def table(self, name: str) -> "pd.DataFrame":
        """One of the tables, see COLUMNS, its models in the order of `models`; names as people read them."""
        import pandas as pd

        try:
            found = pd.read_csv(self._fetch(f"tables/{name}.csv"))
        except (OSError, ValueError) as error:
            raise _other_layout(f"tables/{name}.csv", error) from error
        missing = {"model", *COLUMNS[name]} - set(found)
        if missing:
            raise _other_layout(f"tables/{name}.csv", f"no column {', '.join(sorted(missing))}")
        for column in {"class", "superclass", "actual", "predicted"} & set(found):
            found[column] = found[column].astype(str).map(readable)
        place = {model: place for place, model in enumerate(self.models)}
        return found.sort_values("model", key=lambda models: models.map(place), kind="stable", ignore_index=True)

    def summary(self) -> "pd.DataFrame":
        """A row for each model: what it reaches on the test pictures, and what it costs.

        model; top1, low, high (95 % interval), superclass, ece (calibrated): shares; milliseconds a picture (median);
        minutes of training; megabytes of weights.
        """
        import pandas as pd

        rows = []
        for model in self.models:
            try:
                test, cost = self.metrics(model)["test"], self.data["facts"][model]["cost"]
                rows.append(
                    {
                        "model": model,
                        "top1": float(test["top1"]),
                        "low": float(test["top1_low"]),
                        "high": float(test["top1_high"]),
                        "superclass": float(test["superclass_top1"]),
                        "ece": float(test["ece_calibrated"]),
                        "milliseconds": float(cost["latency_p50_ms"]),
                        "minutes": float(cost["training_seconds"]) / 60,
                        "megabytes": float(cost["weights_bytes"]) / 1e6,
                    }
                )
            except (KeyError, TypeError, ValueError) as error:
                raise _other_layout(f"metrics/{model}.json", error) from error
        return pd.DataFrame(rows)

    def explorer(self) -> Explorer:
        """The test pictures; about 40 MB to fetch the first time where the store is not on this machine."""
        with self._one_at_a_time:
            return self._explorer

    @cached_property
    def _explorer(self) -> Explorer:
        return Explorer(self._fetch)

    def _json(self, path: str) -> dict[str, Any]:
        try:
            content = json.loads(self._text(path))
        except ValueError as error:
            raise _other_layout(path, error) from error
        if not isinstance(content, dict):
            raise _other_layout(path, f"a {type(content).__name__}")
        return content

    def _text(self, path: str) -> str:
        try:
            return self._fetch(path).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise _other_layout(path, error) from error

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


def of(version: Version) -> Comparison:
    """The comparison that a version was registered with, opened once; ComparisonError where there is none."""
    run_id = version.tags.get(RUN_TAG)
    if not run_id:
        raise ComparisonError(f"No comparison was logged with {version}: {LOG_AGAIN}.")
    with _opening:
        return _open(version.tracking_uri, run_id)


@lru_cache(maxsize=KEPT_AT_ONCE)
def _open(tracking_uri: str, run_id: str) -> Comparison:
    return Comparison(tracking_uri, run_id)


def _other_layout(path: str, found: Exception | str) -> ComparisonError:
    told = reason(found) if isinstance(found, Exception) else f"`{found}`"
    return ComparisonError(
        f"`{path}` of the comparison is damaged or of another version of this project ({told}): {LOG_AGAIN}."
    )
