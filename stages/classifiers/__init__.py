"""Image classifiers behind one contract (see classifier.py).

A classifier named ``some_name`` is a folder ``some_name/`` with ``settings.py`` (class ``Settings``) and
``classifier.py`` (class ``SomeName``). Nothing heavy is imported before it is asked for: reading settings needs
neither torch nor TensorFlow. After training only the stage `export` needs this package.
"""

import hashlib
import json
import pkgutil
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ClassifierError
from .settings import ClassifierSettings

if TYPE_CHECKING:
    from .classifier import Classifier

DESCRIPTION = "classifier.json"  # in a saved classifier's folder, beside its weights


def names() -> list[str]:
    """The classifiers there are, sorted: the folders that hold a settings.py."""
    folders = (Path(folder) for folder in __path__)
    return sorted(
        module.name
        for folder in folders
        for module in pkgutil.iter_modules([str(folder)])
        if module.ispkg and (folder / module.name / "settings.py").is_file()
    )


def settings_class(name: str) -> type[ClassifierSettings]:
    """The Settings of a classifier; ClassifierError if there is none of that name."""
    if name not in names():
        raise ClassifierError(f"there is no classifier {name!r}: choose one of {', '.join(names())}")
    return import_module(f".{name}.settings", __name__).Settings


def classifier_class(name: str) -> "type[Classifier]":
    """The class of a classifier; imports its framework."""
    settings_class(name)
    return getattr(import_module(f".{name}.classifier", __name__), name.title().replace("_", ""))


def code_sha256(classifier: "type[Classifier]") -> str:
    """Hash of the code behind a classifier: its own folder, those of the classes it derives from, what all share."""
    folders = {
        Path(sys.modules[parent.__module__].__file__ or "").parent
        for parent in classifier.__mro__
        if parent.__module__.startswith(__name__)
    }
    digest = hashlib.sha256()
    for file in sorted(file for folder in folders | {Path(__file__).parent} for file in folder.glob("*.py")):
        digest.update(f"{file.parent.name}/{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def load(folder: str | Path) -> "Classifier":
    """Rebuild a saved classifier from its code and the weights in `folder`; no pickle is ever read."""
    try:
        description = json.loads((Path(folder) / DESCRIPTION).read_text(encoding="utf-8"))
        name = description["classifier"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClassifierError(f"{folder} holds no saved classifier ({error}): train it again") from error
    return classifier_class(name).load(folder)
