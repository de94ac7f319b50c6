"""Files: written complete or not at all, read with one line where they are not there, told apart by their hashes."""

import hashlib
import json
from pathlib import Path
from typing import Any

from stages.common import paths
from stages.common.errors import UserError


def write_text(file: Path, text: str) -> None:
    """Write a text file: in scratch first, where nobody takes half of it for the whole, then renamed."""
    paths.SCRATCH.mkdir(parents=True, exist_ok=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = paths.SCRATCH / "-".join(file.parts)
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(file)


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a JSON file in the same way."""
    write_text(file, json.dumps(content, indent=2) + "\n")


def read_json(file: Path, remedy: str) -> dict[str, Any]:
    """Read what another stage wrote; UserError with the `remedy` where it is missing or damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file} ({error}): {remedy}") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} holds a {type(content).__name__} instead of named values: {remedy}")
    return content


def file_sha256(file: Path) -> str:
    """Hexadecimal hash of a file's content; OSError where it cannot be read."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def json_sha256(content: Any) -> str:
    """Hexadecimal hash of anything JSON can say, whatever the order of its keys; other values by their text."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
