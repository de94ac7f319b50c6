"""Builds the packaged model: weights, code, requirements and metadata in MLflow's layout."""

import ast
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.models import Model, ModelSignature
from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from packaging.version import Version

from stages.errors import UserError

from . import packaged_model
from .lineage import content_sha256
from .packaged_model import CODE_ARTIFACT, MODEL_ARTIFACT, code_sha256, read_sources

DESCRIPTION = "classifier.json"
ALWAYS_NEEDED = ("mlflow", "numpy", "pandas")  # by packaged_model.py
KERAS_BACKEND = "tensorflow"


@dataclass(frozen=True)
class Package:
    """A model to be packaged.

    model_folder: what the classifier saved: its weights and classifier.json.
    code_folder: the classifiers package. All of it travels, the other classifiers too: it is tiny, and what a
    classifier needs of its siblings need not be guessed.
    example: one or two pictures (N, H, W, 3) uint8.
    about: what the metadata says beside the hashes: model, source, class_names, superclass_names,
    superclass_of_class, image_size, temperature, data_sha256 ...
    metrics: of the model; in the metadata, but no part of its identity.
    """

    model_folder: Path
    code_folder: Path
    example: np.ndarray
    about: Mapping[str, Any]
    metrics: Mapping[str, Any]

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the version: what `about` holds, the hashes, and the metrics."""
        identity = self._identity()
        return {**identity, "package_sha256": content_sha256(identity), "metrics": dict(self.metrics)}

    def _identity(self) -> dict[str, Any]:
        return {
            **self.about,
            "weights_sha256": self._description()["weights_sha256"],
            "code_sha256": code_sha256(read_sources(self.code_folder)),
        }

    def _description(self) -> dict[str, Any]:
        try:
            return json.loads((self.model_folder / DESCRIPTION).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{self.model_folder} holds no saved classifier ({error}): train it again") from error

    def model_files(self) -> list[Path]:
        """classifier.json and the weights it names; what else may lie in the folder is left behind."""
        return [self.model_folder / name for name in (DESCRIPTION, Path(self._description()["weights"]).name)]

    def save(self, folder: Path, mlflow_model: Model | None = None) -> None:
        """Write the package into `folder`, which must not exist; nothing is downloaded, loaded or run.

        mlflow_model: carries the ids of the model and the run it will be logged to.
        """
        with tempfile.TemporaryDirectory() as temporary:
            model, code = Path(temporary) / MODEL_ARTIFACT, Path(temporary) / CODE_ARTIFACT
            model.mkdir()
            for file in self.model_files():
                shutil.copy(file, model)
            for name, source in read_sources(self.code_folder).items():
                (code / name).parent.mkdir(parents=True, exist_ok=True)
                (code / name).write_bytes(source)
            mlflow.pyfunc.save_model(
                path=str(folder),
                python_model=packaged_model.__file__,
                artifacts={MODEL_ARTIFACT: str(model), CODE_ARTIFACT: str(code)},
                signature=_signature(len(self.about["class_names"])),
                input_example=self.example,
                pip_requirements=requirements(self.code_folder, self._description()["classifier"]),
                metadata=self.metadata,
                mlflow_model=mlflow_model if mlflow_model is not None else Model(),
            )


def requirements(code_folder: Path, classifier: str) -> list[str]:
    """What a classifier needs to predict, as pinned pip requirements: the installed versions.

    Followed are the imports that happen when its module loads, not those inside functions: training's own libraries
    are imported there.
    """
    modules = set(ALWAYS_NEEDED) | _imported(code_folder, code_folder / classifier / "classifier.py")
    if "keras" in modules:
        modules.add(KERAS_BACKEND)  # keras imports it by itself
    distributions = packages_distributions()
    # Several distributions may share a module's name, as mlflow and mlflow-skinny do.
    names = {
        module if module in distributions[module] else distributions[module][0]
        for module in modules
        if module in distributions
    }
    # A local version such as 2.9.0+cpu is in no index.
    return sorted(f"{name}=={Version(version(name)).public}" for name in names)


def _signature(num_classes: int) -> ModelSignature:
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, num_classes))]),
        params=ParamSchema([ParamSpec("top_k", DataType.long, 0)]),
    )
    # MLflow then leaves the checks to the model. By itself it would cast what is served to uint8 before any look at it:
    # fractions cut off, a picture with values between 0 and 1 all black.
    signature._is_signature_from_type_hint = True
    return signature


def _imported(package: Path, file: Path) -> set[str]:
    """Top-level names of the libraries that loading `file`, a module of `package`, imports."""
    libraries: set[str] = set()
    waiting, seen = [file], set()
    while waiting:
        module = waiting.pop()
        if module in seen or not module.is_file():
            continue
        seen.add(module)
        # A module's packages are imported before it.
        parents = [parent for parent in module.parents if parent.is_relative_to(package)]
        waiting += [parent / "__init__.py" for parent in parents]
        for statement in _import_statements(ast.parse(module.read_bytes()).body):
            if isinstance(statement, ast.Import):
                libraries |= {alias.name.split(".")[0] for alias in statement.names}
            elif statement.level == 0:
                libraries.add((statement.module or "").split(".")[0])
            else:
                base = module.parents[statement.level - 1].joinpath(*(statement.module or "").split("."))
                waiting += [base.with_suffix(".py"), base / "__init__.py"]
                waiting += [base / f"{alias.name}.py" for alias in statement.names]
                waiting += [base / alias.name / "__init__.py" for alias in statement.names]
    return libraries - set(sys.stdlib_module_names)


def _import_statements(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """The import statements that run when a module loads; not those in functions or under TYPE_CHECKING."""
    for statement in body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            yield statement
        elif isinstance(statement, ast.If) and ast.unparse(statement.test).endswith("TYPE_CHECKING"):
            yield from _import_statements(statement.orelse)
        else:
            for field in ("body", "orelse", "finalbody"):
                if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    yield from _import_statements(getattr(statement, field, []))
            for handler in getattr(statement, "handlers", []):
                yield from _import_statements(handler.body)
