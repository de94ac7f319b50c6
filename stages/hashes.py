"""Hashes that say whether files or settings are the same."""

import hashlib
import json
from pathlib import Path
from typing import Any


def file_sha256(file: Path) -> str:
    """Hexadecimal hash of a file's content; OSError where it cannot be read."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def json_sha256(content: Any) -> str:
    """Hexadecimal hash of anything JSON can say, whatever the order of its keys; other values by their text."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
