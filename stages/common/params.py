"""params.yaml, typed and validated: the whole file, before any stage does anything."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from stages.common import paths
from stages.common.errors import UserError
from stages.common.settings import (
    ClassifierSettings,
    Compute,
    Count,
    Fraction,
    Positive,
    Section,
    Seed,
    classifier_names,
    settings_class,
)

# A model's name is a DVC stage, a folder, and an alias in MLflow's registry, which keeps some for itself.
MODEL_NAME = re.compile(r"(?!(latest|champion|challenger|v\d+)$)[a-z0-9_-]{1,100}", re.IGNORECASE | re.ASCII)


class DemoSize(Section):
    """Images per class of the generated data set."""

    train_per_class: Count
    test_per_class: Count


class Data(Section):
    """Where the pictures come from and how they are split."""

    source: Literal["cifar100", "demo"]
    url: Annotated[str, Field(min_length=1)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    seed: Seed
    val_fraction: Annotated[Positive, Field(lt=1)]
    limit_per_class: Annotated[int, Field(ge=2)] | None
    demo: DemoSize

    @property
    def origin(self) -> str:
        """Where the pictures come from, for people: the URL or path, or the name of the generator."""
        return self.url if self.source == "cifar100" else "stages/data/demo.py"


class Budget(Section):
    """What every model may spend unless it says otherwise."""

    epochs: Count
    train_fraction: Annotated[Fraction, Field(gt=0)]


class Robustness(Section):
    """How much the stage `robustness` measures."""

    images: Count


class Export(Section):
    """Which models get an int8 copy, and which file answers."""

    serve: Literal["auto", "float32", "int8"]
    int8: dict[str, Literal["dynamic", "static"] | None]

    @model_validator(mode="after")
    def _int8_is_there_to_be_served(self) -> Self:
        if self.serve == "int8" and not any(self.int8.values()):
            raise _SectionError("export.serve = 'int8', but export.int8 makes none: set a model there to static")
        return self


class Registry(Section):
    """How models answer once registered, and what a new one must show to become champion."""

    square: Literal["crop", "pad"]
    gate: Literal["significant", "better", "always"]
    alpha: Annotated[Positive, Field(lt=1)]


class Params(Section):
    """The whole of params.yaml."""

    seed: Seed
    data: Data
    budget: Budget
    export: Export
    robustness: Robustness
    registry: Registry
    compute: Compute
    models: Annotated[dict[str, ClassifierSettings], Field(min_length=1)]

    @field_validator("models", mode="before")
    @classmethod
    def _settings_of_each_classifier(cls, models: Any) -> Any:
        if not isinstance(models, dict):
            raise ValueError("expected one section per model")
        settings, mistakes = {}, []
        for name, section in models.items():
            try:
                settings[name] = _settings(name, section)
            except _SectionError as error:
                mistakes.append(str(error))
        if mistakes:
            raise _SectionError("; ".join(mistakes))
        return settings

    @model_validator(mode="after")
    def _int8_of_models_only(self) -> Self:
        unknown = [name for name in self.export.int8 if name not in self.models]
        if unknown:
            raise _SectionError(f"export.int8 names {', '.join(unknown)}: the models are {', '.join(self.models)}")
        return self

    def model(self, name: str) -> ClassifierSettings:
        """The settings of one model; UserError if params.yaml has none of that name."""
        if name not in self.models:
            raise UserError(f"{paths.PARAMS} has no model {name!r}: its models are {', '.join(self.models)}")
        return self.models[name]

    def epochs(self, name: str) -> int:
        """How many epochs a model trains: its own number, else the budget's."""
        return self.model(name).epochs or self.budget.epochs


class _SectionError(ValueError):
    """Carries the finished lines of a model's section through pydantic."""


def _settings(name: Any, section: Any) -> ClassifierSettings:
    if not MODEL_NAME.fullmatch(str(name)):
        raise _SectionError(
            f"models.{name}: a model's name consists of letters, digits, - and _, and is none of latest, champion, "
            "challenger, v1, v2 ..."
        )
    if not isinstance(section, dict) or not isinstance(section.get("classifier"), str):
        choices = ", ".join(classifier_names())
        raise _SectionError(f"models.{name} needs a key `classifier`, one of {choices}")
    try:
        return settings_class(section["classifier"]).model_validate(section)
    except UserError as error:
        raise _SectionError(f"models.{name}.classifier: {error}") from error
    except ValidationError as error:
        raise _SectionError("; ".join(_lines(error, prefix=f"models.{name}."))) from error


def _lines(error: ValidationError, prefix: str = "") -> list[str]:
    lines = []
    for problem in error.errors():
        cause = problem.get("ctx", {}).get("error")
        if isinstance(cause, _SectionError):
            lines.append(str(cause))
            continue
        key = prefix + ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"{key.rstrip('.')} is not a known key: remove or correct it")
        elif problem["type"] == "missing":
            lines.append(f"{key} is missing")
        else:
            message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
            lines.append(f"{key.rstrip('.')} = {problem['input']!r}: {message}")
    return lines


def read(file: Path = paths.PARAMS) -> Params:
    """Read and check params.yaml; UserError names each key that is wrong, its value and what is allowed."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{file} is missing: run from the repository root") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no keys: restore it with `git checkout {file}`")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{file}: {'; '.join(_lines(error))}") from error
