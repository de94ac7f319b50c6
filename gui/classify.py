"""What a registered model takes picture files for: JSON lines on stdout, or CSV.

Folders are searched for pictures, in the order of their names; with `-`, or where the paths are piped in, stdin lists
more of them, one a line. Exit status: 0 where all could be read, 1 where some could not (they are listed on stderr),
2 where the command or the registry is wrong.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TextIO, get_args

from tqdm import tqdm

from gui import batch, command_line, pictures
from gui.archives import File
from gui.batch import Result
from gui.command_line import UsageError
from gui.pictures import PictureError
from gui.registry import Square

TOP_K = 5
LISTED = 1000  # unreadable files, at most
SMALL = 2**16  # bytes: Python makes room for as many as it is asked to read, which for many small files takes its time
SOME_UNREADABLE = 1
EXTENSIONS = tuple(f".{extension}" for extension in pictures.EXTENSIONS)


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
        tally = run(
            arguments.paths, arguments.model, top_k=arguments.top, square=arguments.square, csv_file=arguments.csv
        )
    sys.exit(SOME_UNREADABLE if tally.unreadable else 0)


def run(
    paths: list[str], model_name: str | None, *, top_k: int | None, square: Square | None, csv_file: str | None
) -> Tally:
    """Classify files into JSON lines on stdout, or into a CSV file; what could not be read is told on stderr.

    top_k: None for TOP_K, or for all classes where there are fewer. square: None for the version's own rule.
    csv_file: `-` for stdout.
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
            found = (File(path, partial(_read, path)) for path in files(paths or ["-"], tally.add_unreadable))
            results = _counted(batch.classify(model, found, square, top_k), tally, bar.update)
            if csv_file is None:
                for result in results:
                    stream.write(json.dumps(batch.as_json(result), ensure_ascii=False) + "\n")
            else:
                batch.write_csv(results, stream)
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


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:  # noqa: PTH123 - as above
            content = stream.read(SMALL)
            if len(content) == SMALL:
                content += stream.read(pictures.MAX_MEGABYTES * 2**20)
    except OSError as error:
        raise PictureError(error.strerror or type(error).__name__) from error
    except ValueError as error:  # a name with a null byte in it
        raise PictureError(str(error)) from error
    if len(content) > pictures.MAX_MEGABYTES * 2**20:
        raise PictureError(f"This file has more than the {pictures.MAX_MEGABYTES} MB taken here: save it smaller.")
    return content


def _counted(results: Iterable[Result], tally: Tally, on_done: Callable[[], object]) -> Iterator[Result]:
    """Those with an answer."""
    for result in results:
        on_done()
        if result.answer is None:
            tally.add_unreadable(result.image, result.error)
        else:
            tally.classified += 1
            yield result


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
    parser.add_argument(
        "--square", choices=get_args(Square), help="keep the centre or pad with white (default: as the model says)"
    )
    parser.add_argument("--top", type=int, metavar="K", help=f"answers for each picture (default: {TOP_K})")
    return parser.parse_args()


if __name__ == "__main__":
    main()
