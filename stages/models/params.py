"""params.yaml, typed and validated: the whole file, each model's section included, before any stage does anything.

Here and not in stages/common, because the section of a model is checked by the Settings of its classifier.
"""

import argparse
import re
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from stages.common import paths
from stages.common.errors import UserError
from stages.common.settings import ClassifierSettings, Compute, Count, Fraction, Positive, Section, Seed

KINDS = ("epochs", "images", "minutes")  # of budgets


def classifier_names() -> list[str]:
    """The classifiers there are, sorted: the folders beside this file that hold a settings.py."""
    return sorted(file.parent.name for file in Path(__file__).parent.glob("*/settings.py"))


def settings_class(name: str) -> type[ClassifierSettings]:
    """The Settings of a classifier; UserError if there is none of that name."""
    if name not in classifier_names():
        raise UserError(f"there is no classifier {name!r}: choose one of {', '.join(classifier_names())}")
    return import_module(f"stages.models.{name}.settings").Settings


class DemoSize(Section):
    """Images per class of the generated data set."""

    train_per_class: Count
    test_per_class: Count


class Data(Section):
    """Where the images come from and how they are split."""

    source: Literal["cifar100", "demo"]
    url: Annotated[str, Field(min_length=1)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    seed: Seed
    val_fraction: Annotated[Positive, Field(lt=1)]
    gate_fraction: Annotated[Positive, Field(lt=1)]
    limit_per_class: Annotated[int, Field(ge=2)] | None
    demo: DemoSize

    @property
    def origin(self) -> str:
        """Where the images come from, for people: the URL or path, or the name of the generator."""
        return self.url if self.source == "cifar100" else "stages/data/sources/demo.py"


class Budget(Section):
    """What every model may spend unless it says otherwise: epochs, images or minutes, one of them."""

    epochs: Count | None
    images: Count | None
    minutes: Positive | None
    train_fraction: Annotated[Fraction, Field(gt=0)]
    seeds: Count

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = {kind: getattr(self, kind) for kind in KINDS}
        if len([amount for amount in kinds.values() if amount is not None]) != 1:
            given = ", ".join(f"{kind} = {amount}" for kind, amount in kinds.items())
            raise ValueError(f"one of epochs, images and minutes must be a number, the others null, not {given}")
        return self


class Robustness(Section):
    """How much the stage `robustness` measures."""

    images: Count


class Export(Section):
    """Which models get an int8 copy, and which file is served."""

    serve: Literal["auto", "float32", "int8"]
    int8: dict[str, Literal["dynamic", "static"] | None]


class Registry(Section):
    """How a registered model crops, and what a candidate must show to become champion."""

    square: Literal["crop", "pad"]
    gate: Literal["significant", "better", "always"]
    alpha: Annotated[Positive, Field(lt=1)]


def _model_name(name: str) -> str:
    # It is a DVC stage, a folder, and an alias in MLflow's registry, which keeps some for itself.
    if not re.fullmatch(r"(?!(latest|champion|challenger|v\d+)$)[a-z0-9_-]{1,100}", name, re.IGNORECASE | re.ASCII):
        raise ValueError(
            "a model's name has letters, digits, - and _ alone and is none of latest, champion, challenger, v1, v2 ..."
        )
    return name


def _model_settings(section: Any) -> ClassifierSettings:
    name = section.get("classifier") if isinstance(section, dict) else None
    if name not in classifier_names():
        raise ValueError(f"needs a key `classifier`, one of {', '.join(classifier_names())}, not {name!r}")
    return settings_class(name).model_validate(section)


ModelName = Annotated[str, AfterValidator(_model_name)]
ModelSettings = Annotated[ClassifierSettings, BeforeValidator(_model_settings)]


class Params(Section):
    """The whole of params.yaml."""

    seed: Seed
    data: Data
    budget: Budget
    export: Export
    robustness: Robustness
    registry: Registry
    compute: Compute
    models: Annotated[dict[ModelName, ModelSettings], Field(min_length=1)]

    @model_validator(mode="after")
    def _export_fits_the_models(self) -> Self:
        if unknown := [name for name in self.export.int8 if name not in self.models]:
            raise ValueError(f"export.int8 names {', '.join(unknown)}: the models are {', '.join(self.models)}")
        if self.export.serve == "int8" and not any(self.export.int8.values()):
            raise ValueError("export.serve = 'int8', but export.int8 makes none: set a model there to static")
        return self

    @model_validator(mode="after")
    def _seeds_are_seeds(self) -> Self:
        if self.seed + self.budget.seeds > 2**32:
            raise ValueError(f"seed = {self.seed} and budget.seeds = {self.budget.seeds} lead beyond 4294967295")
        return self

    @property
    def seeds(self) -> range:
        """What each model is trained with, one training each."""
        return range(self.seed, self.seed + self.budget.seeds)

    def model(self, name: str) -> ClassifierSettings:
        """The settings of one model; UserError if params.yaml has none of that name."""
        if name not in self.models:
            raise UserError(f"{paths.PARAMS} has no model {name!r}: its models are {', '.join(self.models)}")
        return self.models[name]

    def length(self, name: str) -> dict[str, Any]:
        """How long a model trains: its own number of epochs, else the budget's epochs, images or minutes, by that name.

        A head alone is fitted in one pass.
        """
        model = self.model(name)
        if getattr(model, "finetune", None) == "head":
            return {"epochs": 1}
        if model.epochs:
            return {"epochs": model.epochs}
        return self.budget.model_dump(include=set(KINDS), exclude_none=True)


def read(file: Path = paths.PARAMS) -> Params:
    """Read and check params.yaml; UserError names each key that is wrong, its value and what is allowed."""
    try:
        return Params.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UserError(f"{file} is missing: run from the repository root") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise UserError(f"{file}: {'; '.join(_line(mistake) for mistake in error.errors())}") from error


def read_for_model(description: str | None) -> tuple[str, Params]:
    """For a stage that is run for one model: its name, from the command line, and the parameters.

    UserError if params.yaml has no such model; description: what `--help` says.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("model", help="a key of models in params.yaml")
    name, settings = parser.parse_args().model, read()
    settings.model(name)
    return name, settings


def _line(mistake: Any) -> str:
    key = ".".join(str(part) for part in mistake["loc"] if part != "[key]")
    if mistake["type"] == "extra_forbidden":
        return f"{key} is not a known key: remove or correct it"
    if mistake["type"] == "missing":
        return f"{key} is missing"
    message = mistake["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if not key or isinstance(mistake["input"], dict | ClassifierSettings):  # too long to repeat
        return f"{key}: {message}" if key else message
    return f"{key} = {mistake['input']!r}: {message}"
