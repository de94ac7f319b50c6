"""Image classifiers: what each network is, and how it is saved and exported. How they learn stands in stages/training.

A classifier named ``some_name`` is a folder ``some_name/`` with ``settings.py`` (class ``Settings``) and ``model.py``
(class ``SomeName``). Nothing heavy is imported before it is asked for. After training only the stage `export` needs
this package.
"""

import hashlib
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from stages.common.errors import UserError
from stages.models.params import settings_class

if TYPE_CHECKING:
    from stages.models.base import Classifier

DESCRIPTION = "classifier.json"  # in a saved classifier's folder, beside its weights
STAGES = Path(__file__).parents[1]


def classifier_class(name: str) -> "type[Classifier]":
    """The class of a classifier; imports its framework. UserError if there is none of that name."""
    settings_class(name)
    return getattr(import_module(f"{__name__}.{name}.model"), name.title().replace("_", ""))


def code_sha256(classifier: "type[Classifier]") -> str:
    """Hash of the code behind a training: of the classes that the classifier derives from, and of what trains them."""
    modules = [parent.__module__ for parent in classifier.__mro__ if parent.__module__.startswith(__name__)]
    names = {Path(sys.modules[module].__file__ or "").parent.relative_to(STAGES / "models") for module in modules}
    folders = [
        STAGES / "common",
        *(STAGES / part / name for part in ("models", "training") for name in {*names, Path()}),
    ]
    digest = hashlib.sha256()
    for file in sorted(file for folder in folders for file in folder.glob("*.py")):
        digest.update(f"{file.relative_to(STAGES).as_posix()}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def load(folder: str | Path) -> "Classifier":
    """Rebuild a saved classifier from its code and the weights in `folder`; no pickle is ever read."""
    try:
        description = json.loads((Path(folder) / DESCRIPTION).read_text(encoding="utf-8"))
        name = description["classifier"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} holds no saved classifier ({error}): train it again") from error
    return classifier_class(name).load(folder)
