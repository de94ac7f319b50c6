"""The shipped params.yaml with some keys changed."""

from pathlib import Path
from typing import Any

import yaml

SHIPPED = Path(__file__).parents[1] / "params.yaml"
REMOVED = object()


def changed_params(changes: dict[str, Any]) -> dict[str, Any]:
    """changes: values by dotted path, e.g. {"models.vit_scratch.depth": 2}; REMOVED: the key goes."""
    content = yaml.safe_load(SHIPPED.read_text())
    for path, value in changes.items():
        *sections, key = path.split(".")
        place = content
        for section in sections:
            place = place[section]
        place[key] = value
        if value is REMOVED:
            del place[key]
    return content
