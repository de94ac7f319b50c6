"""What the stage `export` wrote for a model: the ONNX file that answers, and what is known of it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from stages.common import paths
from stages.common.errors import UserError
from stages.common.files import file_sha256
from stages.inference.onnx_model import OnnxModel

DESCRIPTION = "export.json"


@dataclass(frozen=True)
class Exported:
    """description: all of export.json."""

    model: str
    description: dict[str, Any]

    @classmethod
    def open(cls, model: str) -> Self:
        """Read data/onnx/<model>/export.json; UserError where there is none."""
        file = paths.ONNX / model / DESCRIPTION
        try:
            description = json.loads(file.read_text(encoding="utf-8"))
            exported = cls(model, description)
            _ = exported.file, exported.sha256
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"cannot read {file} ({error}): run `dvc repro export@{model}`") from error
        return exported

    @property
    def file(self) -> Path:
        """The ONNX file that is measured, registered and served: of the precision that export chose."""
        return paths.ONNX / self.model / self.description["files"][self.precision]["file"]

    @property
    def precision(self) -> str:
        """float32 or int8."""
        return self.description["serves"]

    @property
    def sha256(self) -> str:
        """Of that file."""
        return self.description["files"][self.precision]["sha256"]

    def verified(self) -> Path:
        """That file, looked at; UserError where it is missing or was changed."""
        try:
            found = file_sha256(self.file)
        except OSError as error:
            raise UserError(f"{error}: run `dvc repro --force export@{self.model}`") from error
        if found != self.sha256:
            raise UserError(
                f"{self.file} was changed (sha256 {found[:12]}..., expected {self.sha256[:12]}...): "
                f"run `dvc repro --force export@{self.model}`"
            )
        return self.file

    def load(self, threads: int | None) -> OnnxModel:
        """That file, loaded; UserError where it is missing, damaged or was changed."""
        try:
            return OnnxModel(self.verified(), threads)
        except ValueError as error:
            raise UserError(f"{error}: run `dvc repro --force export@{self.model}`") from error
