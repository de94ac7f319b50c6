"""The latest state of a training on disk: written whole or not at all, and used for nothing but the same training."""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.common.files import file_sha256

INDEX = "checkpoint.json"


@dataclass(frozen=True)
class Checkpoint:
    """A state that a training can go on from.

    file: what `write` wrote, intact.
    progress: what the engine said along with it.
    """

    file: Path
    progress: dict[str, Any]


class Checkpoints:
    """A folder with the last checkpoint of one training.

    folder: made when the first checkpoint is saved; nothing else should be in it.
    configuration: all that decides how the training goes (parameters, data, code, libraries, precision ...), as JSON.
        A checkpoint of another configuration is left aside, and a line says what differs.
    minutes: from one checkpoint to the next within an epoch; after each epoch there is one anyway.

    latest: the checkpoint to go on from, or None.
    notes: what the caller wants to find again, as JSON: kept with every checkpoint.
    """

    def __init__(self, folder: str | Path, configuration: Mapping[str, Any], minutes: float) -> None:
        self.folder = Path(folder)
        self.configuration = json.loads(json.dumps(dict(configuration), sort_keys=True, default=str))
        self.interval = minutes * 60
        self.notes: dict[str, Any] = {}
        self._seconds_before = 0.0
        self._started = self._last_saved = time.monotonic()
        self.latest = self._read()

    @property
    def seconds(self) -> float:
        """How long the training has run until now, the time before it was broken off included."""
        return self._seconds_before + time.monotonic() - self._started

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
        unfinished = file.with_suffix(".unfinished")
        write(unfinished)
        _to_disk(unfinished)
        unfinished.replace(file)
        index = {
            "file": file.name,
            "sha256": file_sha256(file),
            "configuration": self.configuration,
            "seconds": self.seconds,
            "progress": dict(progress),
            "notes": self.notes,
        }
        unfinished.write_text(json.dumps(index), encoding="utf-8")
        _to_disk(unfinished)
        unfinished.replace(self.folder / INDEX)
        for other in self.folder.iterdir():
            if other.name not in (INDEX, file.name):
                other.unlink()
        self._last_saved = time.monotonic()

    def clear(self) -> None:
        """Remove the folder: the training is over and its results are safe."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self) -> Checkpoint | None:
        if not (self.folder / INDEX).exists():
            return None
        try:
            index = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))
            file = self.folder / Path(index["file"]).name
            differing = _differences(index["configuration"], self.configuration)
            intact = file_sha256(file) == index["sha256"]
            checkpoint = Checkpoint(file, dict(index["progress"]))
            notes, seconds = dict(index["notes"]), float(index["seconds"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            intact, differing = False, []
        if differing or not intact:
            reason = f"belongs to another training ({', '.join(differing)} differ)" if differing else "is damaged"
            print(f"The checkpoint in {self.folder} {reason}: it is ignored, training starts from the beginning")
            return None
        self.notes, self._seconds_before = notes, seconds
        return checkpoint


def _differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    names = []
    for key in sorted(theirs.keys() | ours.keys()):
        was, now = theirs.get(key), ours.get(key)
        if was == now:
            continue
        if isinstance(was, dict) and isinstance(now, dict):
            names += [f"{key}.{name}" for name in _differences(was, now)]
        else:
            names.append(key)
    return names


def _to_disk(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
