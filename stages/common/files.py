"""Files: written completely or not at all, read with a one-line error, identified by their hashes."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from stages.common import paths
from stages.common.errors import UserError


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A path in scratch to write to; it becomes `file` where the block ends without an error."""
    paths.SCRATCH.mkdir(parents=True, exist_ok=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = paths.SCRATCH / "-".join(file.parts)
    yield unfinished
    unfinished.replace(file)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """An empty folder in scratch to write into; it becomes `folder` where the block ends without an error."""
    unfinished = paths.SCRATCH / "-".join(folder.parts)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    yield unfinished
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished.rename(folder)


def write_text(file: Path, text: str) -> None:
    """Write a text file, completely or not at all."""
    with replacing(file) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz file, completely or not at all."""
    with replacing(file) as unfinished:
        np.savez(unfinished, **arrays)  # type: ignore[arg-type] # NumPy's stubs take its names for options


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, completely or not at all."""
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
    """Hexadecimal hash of any JSON value, whatever the order of its keys; other types by their text."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
