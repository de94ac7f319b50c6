"""Image classifiers: what each network is, its initial weights, how it is saved, loaded and exported.

A classifier named ``some_name`` is a folder ``some_name/`` with ``settings.py`` (class ``Settings``) and ``model.py``
(class ``SomeName``). Nothing heavy is imported before it is asked for. How a classifier learns: stages/training, which
nothing here imports. After training only the stage `export` needs this package.
"""

import contextlib
import json
import os
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from stages.common.errors import UserError
from stages.common.files import file_sha256, read_json
from stages.models.params import settings_class

if TYPE_CHECKING:
    from stages.models.base import Classifier

DESCRIPTION = "classifier.json"  # in a saved classifier's folder, beside its weights


def classifier_class(name: str) -> "type[Classifier]":
    """The class of a classifier; imports its framework. UserError if there is none of that name."""
    settings_class(name)
    prepare_frameworks()
    return getattr(import_module(f"{__name__}.{name}.model"), name.title().replace("_", ""))


@cache
def prepare_frameworks() -> None:
    """What has to happen before Keras and TensorFlow are first imported."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Triton, which comes with torch for CUDA, crashes a process that has loaded TensorFlow before it.
    with contextlib.suppress(ImportError):
        import_module("triton._C.libtriton")


def save(classifier: "Classifier", folder: Path) -> str:
    """Write weights and classifier.json into `folder`, which must exist; returns the weights' sha256.

    Same weights, same bytes.
    """
    weights = classifier.save_weights(folder)
    digest = file_sha256(weights)
    description = {
        "classifier": classifier.settings.classifier,
        "settings": classifier.settings.model_dump(),
        "num_classes": classifier.num_classes,
        "image_size": classifier.image_size,
        "weights": weights.name,
        "weights_sha256": digest,
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    return digest


def load(folder: Path) -> "Classifier":
    """Rebuild what save wrote into `folder`, from code and weights; no pickle is ever read.

    UserError where a file is missing, damaged or does not fit.
    """
    description = read_json(folder / DESCRIPTION, "train the model again")
    settings = description["settings"]
    if "weights" in settings:  # the initial ones are about to be replaced, and may be gone
        settings["weights"] = "random"
    weights = folder / Path(description["weights"]).name
    if not weights.is_file() or file_sha256(weights) != description["weights_sha256"]:
        raise UserError(f"{weights} is missing or damaged: restore it, or train the model again")
    name = description["classifier"]
    classifier = classifier_class(name)(
        settings_class(name).model_validate(settings), description["num_classes"], description["image_size"]
    )
    classifier.load_weights(weights)
    return classifier
