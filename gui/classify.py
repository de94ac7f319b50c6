"""What a registered model takes picture files for: JSON lines on stdout, or CSV.

Folders are searched for pictures, in the order of their names; with `-`, or where the paths are piped in, stdin lists
more of them, one a line. Pictures are cropped to a square, as in the app. Exit status: 0 where all could be read, 1
where some could not (they are listed on stderr), 2 where the command or the registry is wrong.
"""

import argparse
import csv
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
from tqdm import tqdm

from gui import command_line, pictures
from gui.batch import no_formula
from gui.command_line import UsageError
from gui.pictures import PictureError
from gui.registry import Answer, Model

TOP_K = 5
BATCH = 64  # pictures that the model is given at once
THREADS = min(8, os.cpu_count() or 1)  # of the largest pictures one is read at a time, see gui.pictures
LARGE = 64 * 2**10  # bytes, from which on a file is worth a thread: only decoders let other threads run
LISTED = 1000  # unreadable files, at most
SOME_UNREADABLE = 1
EXTENSIONS = tuple(f".{extension}" for extension in pictures.EXTENSIONS)


@dataclass(frozen=True)
class Result:
    """What the model says of one file. unfamiliar: unlike the training pictures; None where the version cannot tell."""

    file: str
    answers: list[Answer]
    unfamiliar: bool | None


@dataclass
class Tally:
    """How many files were classified, and how many gave no picture; of these the first LISTED lines with reasons."""

    classified: int = 0
    unreadable: int = 0
    lines: list[str] = field(default_factory=list)

    def add_unreadable(self, file: str, reason: str) -> None:
        self.unreadable += 1
        if self.unreadable <= LISTED:
            self.lines.append(f"{file}: {reason}")


def main() -> None:
    arguments = _arguments()
    for stream in (sys.stdin, sys.stdout):
        if hasattr(stream, "reconfigure"):
            # File names are bytes: those that are no UTF-8 go out as they came in.
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    with command_line.one_line_errors("classify"):
        tally = run(arguments.paths, arguments.model, top_k=arguments.top, csv_file=arguments.csv)
    sys.exit(SOME_UNREADABLE if tally.unreadable else 0)


def run(paths: list[str], model_name: str | None, *, top_k: int | None, csv_file: str | None) -> Tally:
    """Classify files into JSON lines on stdout, or into a CSV file; what could not be read is told on stderr.

    top_k: None for TOP_K, or for all classes where there are fewer. csv_file: `-` for stdout.
    UsageError or RegistryError where nothing can be classified; then no CSV file is left.
    """
    if not paths and (sys.stdin is None or sys.stdin.isatty()):
        raise UsageError("no pictures: name files or folders, or `-` and give their paths on stdin")
    tally = Tally()
    with _output(csv_file) as stream:
        model = command_line.load(model_name)
        known = len(model.class_names)
        if top_k is None:
            top_k = min(TOP_K, known)
        if not 1 <= top_k <= known:
            raise UsageError(f"--top {top_k}: this model knows {known} classes, ask for 1 to {known}")
        # Answers that scroll by are progress enough.
        watched = sys.stderr.isatty() and not (stream is sys.stdout and stream.isatty())
        counted = watched and paths and "-" not in paths
        total = sum(1 for _ in files(paths, lambda file, reason: None)) if counted else None
        started = time.perf_counter()
        with tqdm(total=total, unit=" pictures", disable=not watched, dynamic_ncols=True) as bar:
            results = classify(model, files(paths or ["-"], tally.add_unreadable), top_k, tally, on_done=bar.update)
            (_write_json if csv_file is None else _write_csv)(results, stream)
            stream.flush()
        seconds = time.perf_counter() - started
        if not tally.classified + tally.unreadable:
            raise UsageError(f"no pictures in {', '.join(paths) or 'what stdin lists'}")
    rate = f"{seconds:,.2f} s, {tally.classified / seconds:,.1f} a second"
    print(f"{tally.classified:,} pictures classified by {model.version} ({rate})", file=sys.stderr)
    if tally.unreadable:
        print(f"{tally.unreadable:,} could not be read:", *tally.lines, sep="\n  ", file=sys.stderr)
        if tally.unreadable > LISTED:
            print(f"  and {tally.unreadable - LISTED:,} more", file=sys.stderr)
    return tally


def files(paths: Iterable[str], on_unreadable: Callable[[str, str], None]) -> Iterator[str]:
    """The files that paths stand for, one by one: pictures in folders, and for `-` what stdin lists.

    on_unreadable(folder, reason): told of folders that cannot be looked into.
    """
    for path in paths:
        named = (line.rstrip("\r\n") for line in sys.stdin) if path == "-" else [path]
        for each in named:
            if os.path.isdir(each):  # noqa: PTH112 - no Path is built for each of many files
                yield from _in_folder(each, on_unreadable)
            elif each:
                yield each


def _in_folder(folder: str, on_unreadable: Callable[[str, str], None]) -> Iterator[str]:
    def closed(error: OSError) -> None:
        on_unreadable(str(error.filename), error.strerror or type(error).__name__)

    for parent, folders, names in os.walk(folder, onerror=closed):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                yield os.path.join(parent, name)  # noqa: PTH118


def classify(
    model: Model, found: Iterable[str], top_k: int, tally: Tally, on_done: Callable[[int], object]
) -> Iterator[Result]:
    """The model's answers, in the order of the files, of which memory holds one batch.

    on_done: told of every number of files that were read, whether they gave a picture or not.
    """
    # By turns: a batch is read, then the model works on all cores. A network's threads wait for one another at every
    # layer, so that reading beside them takes more from the model than its own time.
    pool = ThreadPoolExecutor(THREADS)
    try:
        for batch in _batches(found):
            large = {file: pool.submit(_picture, file, model) for file in batch if _is_large(file)}
            readable = []
            for file in batch:
                picture = large[file].result() if file in large else _picture(file, model)
                if isinstance(picture, str):
                    tally.add_unreadable(file, picture)
                else:
                    readable.append((file, picture))
            if readable:
                rows = model.probabilities(np.stack([picture for _, picture in readable]))
                for (file, _), row in zip(readable, rows, strict=True):
                    tally.classified += 1
                    yield Result(file, model.answers(row, top_k), model.is_unfamiliar(row))
            on_done(len(batch))
    finally:
        pool.shutdown(cancel_futures=True)


def _is_large(file: str) -> bool:
    try:
        return os.path.getsize(file) >= LARGE  # noqa: PTH202 - no Path is built for each of many files
    except (OSError, ValueError):  # whoever reads it says why
        return False


def _picture(file: str, model: Model) -> np.ndarray | str:
    """What the model gets of a file, (S, S, 3) uint8, or why there is none."""
    try:
        return model.sees(pictures.square(_load(file), "crop"))
    except OSError as error:
        return error.strerror or type(error).__name__
    except (PictureError, ValueError) as error:  # ValueError: a name with a null byte in it
        return str(error)


def _load(file: str) -> np.ndarray:
    with Path(file).open("rb") as stream:
        content = stream.read(pictures.MAX_MEGABYTES * 2**20 + 1)
    if len(content) > pictures.MAX_MEGABYTES * 2**20:
        raise PictureError(f"This file has more than the {pictures.MAX_MEGABYTES} MB taken here: save it smaller.")
    return pictures.load(content)


def _batches(found: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(found)
    while batch := list(islice(iterator, BATCH)):
        yield batch


def _write_json(results: Iterable[Result], stream: TextIO) -> None:
    """One object a line."""
    for result in results:
        answers = [
            {"class": answer.class_name, "superclass": answer.superclass_name, "probability": _rounded(answer)}
            for answer in result.answers
        ]
        line = {"picture": result.file, "unfamiliar": result.unfamiliar, "answers": answers}
        stream.write(json.dumps(line, ensure_ascii=False) + "\n")


def _write_csv(results: Iterable[Result], stream: TextIO) -> None:
    """One row for each answer; spreadsheets take no file's name for a formula."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["picture", "rank", "class", "superclass", "probability", "unfamiliar"])
    for result in results:
        unfamiliar = "" if result.unfamiliar is None else str(result.unfamiliar).lower()
        for rank, answer in enumerate(result.answers, start=1):
            row = [
                no_formula(result.file),
                rank,
                answer.class_name,
                answer.superclass_name,
                _rounded(answer),
                unfamiliar,
            ]
            writer.writerow(row)


def _rounded(answer: Answer) -> float:
    return round(answer.confidence, 6)


@contextmanager
def _output(csv_file: str | None) -> Iterator[TextIO]:
    """Where the answers go. A file appears under its name when it is complete, and not at all where that fails."""
    if csv_file is None or csv_file == "-":
        yield sys.stdout
        return
    file = Path(csv_file)
    if file.exists() and not file.is_file():
        raise UsageError(f"--csv {file}: this is no file: name one that may be written")
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with unfinished.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
            yield stream
        unfinished.replace(file)
    except OSError as error:
        raise UsageError(f"--csv {file}: it cannot be written ({error.strerror}): name another file") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gui.classify", description=__doc__)
    parser.add_argument("paths", nargs="*", metavar="PICTURE", help="picture files and folders of them; - for stdin")
    command_line.add_model(parser)
    parser.add_argument("--csv", metavar="FILE", help="write CSV into FILE, one row for each answer; - for stdout")
    parser.add_argument("--top", type=int, metavar="K", help=f"answers for each picture (default: {TOP_K})")
    return parser.parse_args()


if __name__ == "__main__":
    main()
