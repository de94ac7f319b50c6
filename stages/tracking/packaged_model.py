"""The registered model as MLflow runs it: raw pictures in, probabilities or labelled rows out.

MLflow copies this file into every version (models-from-code) and executes the copy, beside a copy of the classifiers'
code and the weights. So it imports nothing of this project: numpy, pandas and MLflow only.
"""

import hashlib
import importlib
import json
import logging
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import Model, set_model
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel

MODEL_ARTIFACT = "model"  # weights and classifier.json
CODE_ARTIFACT = "classifiers"  # the package that rebuilds the classifier from them

logger = logging.getLogger(__name__)


class Refused(MlflowException):
    """What is wrong with a request, and no more: served, MLflow would repeat the whole request in front of it."""

    def __init__(self, reason: str, error_code: int = INVALID_PARAMETER_VALUE) -> None:
        super().__init__(reason, error_code)
        self.reason = reason

    def serialize_as_json(self) -> str:
        return json.dumps({"error_code": self.error_code, "message": self.reason})


def read_sources(folder: Path) -> dict[str, bytes]:
    """The Python files of a folder by their path in it, in posix notation and sorted; caches are left out."""
    files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.py"))
    return {file: (folder / file).read_bytes() for file in files}


def code_sha256(sources: dict[str, bytes]) -> str:
    """Hash of a version's code: of this file and of the classifiers' sources."""
    digest = hashlib.sha256()
    for name, source in [("", Path(__file__).read_bytes()), *sorted(sources.items())]:
        digest.update(f"{name}\0{len(source)}\0".encode() + source)
    return digest.hexdigest()


class _Source(SourceFileLoader):
    """Loads a module from its source in memory: the one that was hashed, and no byte code that lies beside it."""

    def __init__(self, fullname: str, path: str, source: bytes) -> None:
        super().__init__(fullname, path)
        self.source = source

    def get_data(self, path: str | bytes) -> bytes:
        return self.source

    def path_stats(self, path: str | bytes) -> Mapping[str, Any]:
        raise OSError("no byte code is read or written")  # what importlib asks before it looks for any


class _Sources(MetaPathFinder):
    """Finds the modules of one package among sources in memory, and nowhere else."""

    def __init__(self, package: str, folder: Path, sources: dict[str, bytes]) -> None:
        self.package = package
        self.folder = folder
        self.sources = sources

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.package and not fullname.startswith(self.package + "."):
            return None
        stem = fullname.removeprefix(self.package).removeprefix(".").replace(".", "/")
        for file in (f"{stem}.py", f"{stem}/__init__.py".removeprefix("/")):
            if file in self.sources:
                where = self.folder / file
                loader = _Source(fullname, str(where), self.sources[file])
                inside = [str(where.parent)] if where.name == "__init__.py" else None
                return spec_from_file_location(fullname, where, loader=loader, submodule_search_locations=inside)
        raise ModuleNotFoundError(f"the packaged code has no module {fullname}", name=fullname)


def import_classifiers(folder: Path, expected_sha256: str) -> ModuleType:
    """Import the packaged classifiers under a name made from their hash, so that versions do not meet.

    MlflowException where the code is not what the version's metadata says.
    """
    sources = read_sources(folder)
    found = code_sha256(sources)
    if found != expected_sha256:
        raise MlflowException.invalid_parameter_value(
            f"the code of this model was changed after it was registered (sha256 {found[:12]}..., expected "
            f"{expected_sha256[:12]}...): register the model again"
        )
    name = f"classifiers_{found[:12]}"
    if name not in sys.modules:
        sys.meta_path.insert(0, _Sources(name, folder, sources))
    package = importlib.import_module(name)
    # Another version may have brought the same code, in a folder that is gone by now.
    package.__path__ = [str(folder)]
    return package


class PackagedClassifier(PythonModel):
    """A classifier as MLflow serves it, to several threads at once.

    predict(images): images (N, H, W, 3) uint8 of any size, or the same as nested lists of whole numbers from 0 to 255,
    as they come out of JSON; returns probabilities (N, C) float32, rows sum to 1.
    predict(images, params={"top_k": k}): a data frame with k rows for each picture: picture (from 0), rank (from 1),
    class, superclass, probability.
    MlflowException where the request is wrong (an HTTP status of 400) or the model fails (500).
    """

    def load_context(self, context: Any) -> None:
        """Verify and import the packaged code, load the weights. Called by MLflow."""
        folder = Path(context.artifacts[CODE_ARTIFACT])
        root = next(parent for parent in folder.parents if (parent / "MLmodel").is_file())
        self.metadata: dict[str, Any] = Model.load(root).metadata or {}
        self._one_at_a_time = threading.Lock()  # Keras is not thread-safe, and PyTorch takes all cores anyway
        classifiers = import_classifiers(folder, self.metadata["code_sha256"])
        try:
            self.classifier = classifiers.load(context.artifacts[MODEL_ARTIFACT])
        except classifiers.ClassifierError as error:
            # Without what caused it: the line is written for people, and says more than a library's.
            raise MlflowException.invalid_parameter_value(str(error).replace(f"{root}/", "")) from None
        described = json.loads(
            (Path(context.artifacts[MODEL_ARTIFACT]) / "classifier.json").read_text(encoding="utf-8")
        )
        if described["weights_sha256"] != self.metadata.get("weights_sha256", described["weights_sha256"]):
            raise MlflowException.invalid_parameter_value(
                "the weights of this model are others than those that were registered: register the model again"
            )

    def predict(
        self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray | pd.DataFrame:
        """Probabilities, or labelled rows where params ask for them (see the class)."""
        images = _checked(model_input)
        top_k = (params or {}).get("top_k") or 0
        num_classes = len(self.metadata["class_names"])
        if not 0 <= top_k <= num_classes:
            raise Refused(f"top_k = {top_k}: ask for 1 to {num_classes} classes, or 0 for all probabilities")
        try:
            with self._one_at_a_time:
                logits = self.classifier.logits(images)
        except Exception as error:  # whatever it is: MLflow's server would answer any other kind with a stack trace
            logger.exception("the model failed on pictures %s", images.shape)
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise Refused(f"the model failed on pictures {images.shape} ({reason})", INTERNAL_ERROR) from error
        probabilities = softmax(logits, self.metadata["temperature"])
        return self._rows(probabilities, top_k) if top_k else probabilities

    def shrink(self, images: np.ndarray) -> np.ndarray:
        """What the network sees: images (N, H, W, 3) uint8 at the size it was trained on, (N, size, size, 3) uint8."""
        return self.classifier.shrink(_checked(images))

    def _rows(self, probabilities: np.ndarray, top_k: int) -> pd.DataFrame:
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
        classes = best.ravel()
        superclasses = np.asarray(self.metadata["superclass_of_class"], dtype=np.int64)[classes]
        return pd.DataFrame(
            {
                "picture": np.repeat(np.arange(len(best)), top_k),
                "rank": np.tile(np.arange(1, top_k + 1), len(best)),
                "class": np.asarray(self.metadata["class_names"])[classes],
                "superclass": np.asarray(self.metadata["superclass_names"])[superclasses],
                "probability": np.take_along_axis(probabilities, best, axis=1).ravel(),
            }
        )


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Logits (N, C) to probabilities (N, C) float32, rows sum to 1; computed in float64."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def _checked(images: Any) -> np.ndarray:
    """Pictures (N, H, W, 3) uint8, from such an array or from nested lists; Refused where they are anything else."""
    if isinstance(images, list):
        images = _from_lists(images)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        kind = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
        raise Refused(f"pictures must be a uint8 array (N, H, W, 3), not {kind}")
    if images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape[1:3]:
        raise Refused(f"pictures must be (N, H, W, 3) with pixels, not {images.shape}")
    return images


def _from_lists(images: list[Any]) -> np.ndarray:
    try:
        array = np.asarray(images)
    except ValueError:
        raise Refused("pictures must be lists (N, H, W, 3) of one size: send others in another request") from None
    if array.size == 0:
        raise Refused(f"pictures must be lists (N, H, W, 3) with pixels, not {array.shape}")
    if array.dtype.kind not in "iu":
        kind = {"f": "fractions", "b": "true and false", "U": "text"}.get(array.dtype.kind, "something else")
        raise Refused(f"pixels must be whole numbers from 0 to 255, and there is {kind} among them")
    if array.min() < 0 or array.max() > 255:
        raise Refused(f"pixels must be whole numbers from 0 to 255, not {array.min()} to {array.max()}")
    return array.astype(np.uint8)


set_model(PackagedClassifier())
