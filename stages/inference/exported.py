"""What the stage `export` wrote for a model: for each seed the ONNX file that is served, and what is known of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from stages.common import paths
from stages.common.errors import UserError
from stages.common.files import file_sha256, read_json
from stages.inference.onnx_model import OnnxModel

DESCRIPTION = "export.json"
CHOSEN = "chosen.json"


@dataclass(frozen=True)
class Exported:
    """seed: of the training. description: all of export.json. folder: holds a folder for each model."""

    model: str
    seed: int
    description: dict[str, Any]
    folder: Path = paths.ONNX

    @classmethod
    def open(cls, model: str, seed: int | None = None, folder: Path = paths.ONNX) -> Self:
        """Read <folder>/<model>/<seed>/export.json, by default of the chosen seed; UserError where there is none."""
        seed = chosen(model, folder)["seed"] if seed is None else seed
        file, remedy = folder / model / str(seed) / DESCRIPTION, f"run `dvc repro export@{model}`"
        exported = cls(model, seed, read_json(file, remedy), folder)
        try:
            _ = exported.file, exported.sha256
        except (KeyError, TypeError) as error:
            raise UserError(f"cannot read {file} ({error!r}): {remedy}") from error
        return exported

    @property
    def file(self) -> Path:
        """The ONNX file that is measured, registered and served: of the precision that export chose."""
        return self.folder / self.model / str(self.seed) / self.description["files"][self.precision]["file"]

    @property
    def precision(self) -> str:
        """float32 or int8."""
        return self.description["serves"]

    @property
    def sha256(self) -> str:
        """Of that file."""
        return self.description["files"][self.precision]["sha256"]

    def verified(self) -> Path:
        """That file, its hash checked; UserError where it is missing or was changed."""
        try:
            found = file_sha256(self.file)
        except OSError as error:
            raise self._broken(error) from error
        if found != self.sha256:
            raise self._broken(f"{self.file} was changed (sha256 {found[:12]}..., expected {self.sha256[:12]}...)")
        return self.file

    def load(self, threads: int | None) -> OnnxModel:
        """That file, loaded; UserError where it is missing, damaged or was changed."""
        try:
            return OnnxModel(self.verified(), threads)
        except ValueError as error:
            raise self._broken(error) from error

    def _broken(self, reason: object) -> UserError:
        return UserError(f"{reason}: run `dvc repro --force export@{self.model}`")


def chosen(model: str, folder: Path = paths.ONNX) -> dict[str, Any]:
    """seed: the one with the highest top-1 on validation, of equals the first; val_top1: of each, by its seed as text.

    UserError where export did not write them.
    """
    file, remedy = folder / model / CHOSEN, f"run `dvc repro export@{model}`"
    found = read_json(file, remedy)
    if not {str(found.get("seed"))} <= found.get("val_top1", {}).keys():
        raise UserError(f"{file} does not say which seed was chosen: {remedy}")
    return found
