"""The latest state of a training on disk: written whole or not at all, and used for the same training alone."""

import hashlib
import inspect
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from stages.common.files import file_sha256
from stages.models.base import Classifier

INDEX = "checkpoint.json"
STAGES = Path(__file__).parents[1]


def code_sha256(kind: type[Classifier]) -> str:
    """Hash of the code that decides how a classifier of this class is trained."""
    folders = {Path(inspect.getfile(part)).parent for part in kind.__mro__ if part.__module__.startswith("stages.")}
    folders |= {STAGES / "common", STAGES / "training", STAGES / "training" / kind.engine}
    digest = hashlib.sha256()
    for file in sorted(file for folder in folders for file in folder.glob("*.py")):
        digest.update(f"{file.relative_to(STAGES).as_posix()}\0".encode() + file.read_bytes())
    return digest.hexdigest()


class Checkpoint(NamedTuple):
    """A state that a training can resume from.

    file: what `write` wrote, intact.
    progress: what was saved along with it.
    """

    file: Path
    progress: dict[str, Any]


class Checkpoints:
    """A folder with the last checkpoint of one training.

    folder: made when the first checkpoint is saved; nothing else should be in it.
    configuration: all that decides how the training goes (parameters, data, code, libraries, precision ...), as JSON.
        A checkpoint of another configuration is ignored, and a line says what differs.
    minutes: from one checkpoint to the next within an epoch; after each epoch there is one anyway.

    latest: the checkpoint to resume from, or None.
    notes: what the caller wants to find again, as JSON: kept with every checkpoint.
    """

    def __init__(self, folder: Path, configuration: Mapping[str, Any], minutes: float) -> None:
        self.folder = folder
        self.configuration = json.loads(json.dumps(dict(configuration), default=str))
        self.interval = minutes * 60
        self.latest: Checkpoint | None = None
        self.notes: dict[str, Any] = {}
        self._seconds_before = 0.0
        self._started = self._last_saved = time.monotonic()
        if (folder / INDEX).exists():
            self._read()

    @property
    def seconds(self) -> float:
        """How long the training has run until now, the time before an interruption included."""
        return self._seconds_before + time.monotonic() - self._started

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens meanwhile does not count in `seconds`."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._started += time.monotonic() - began

    def due(self) -> bool:
        """Whether the last checkpoint is `minutes` old."""
        return time.monotonic() - self._last_saved >= self.interval

    def save(self, write: Callable[[Path], Any], progress: Mapping[str, Any]) -> None:
        """Replace the checkpoint. A crash, at any moment, leaves either the former one or the new one.

        write: writes the state into the file it is given.
        progress: as JSON.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"state-{time.time_ns()}"
        _write_whole(file, write)
        index = {
            "file": file.name,
            "sha256": file_sha256(file),
            "configuration": self.configuration,
            "seconds": self.seconds,
            "progress": dict(progress),
            "notes": self.notes,
        }
        _write_whole(self.folder / INDEX, lambda unfinished: unfinished.write_text(json.dumps(index), encoding="utf-8"))
        for other in self.folder.iterdir():
            if other.name not in (INDEX, file.name):
                other.unlink()
        self._last_saved = time.monotonic()

    def clear(self) -> None:
        """Remove the folder: the training is over and its results are safe."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self) -> None:
        reason = "is damaged"
        try:
            index = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))
            file = self.folder / Path(index["file"]).name
            if differing := _differences(index["configuration"], self.configuration):
                reason = f"belongs to another training ({', '.join(differing)} differ)"
            elif file_sha256(file) == index["sha256"]:
                self.latest = Checkpoint(file, dict(index["progress"]))
                self.notes, self._seconds_before = dict(index["notes"]), float(index["seconds"])
                return
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        print(f"The checkpoint in {self.folder} {reason}: it is ignored, training starts from the beginning")


def _differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """Dotted names of what is not the same in both."""
    names = []
    for key in sorted(theirs.keys() | ours.keys()):
        was, now = theirs.get(key), ours.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            names += [f"{key}.{name}" for name in _differences(was, now)]
        elif was != now:
            names.append(key)
    return names


def _write_whole(file: Path, write: Callable[[Path], Any]) -> None:
    unfinished = file.with_suffix(".unfinished")
    write(unfinished)
    with unfinished.open("rb") as stream:
        os.fsync(stream.fileno())
    unfinished.replace(file)
