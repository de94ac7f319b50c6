"""Classify image files by a registered model: a line of JSON on stdout for each row, or CSV.

prediction_set: 90 % prediction set; over many images it holds the right class 9 times in 10. out_of_distribution:
whether the image is unlike those of the training; null where the model cannot tell (stderr says why).

Folders are searched for images, in the order of their names; with `-`, or where the paths are piped in, stdin lists
more of them, one a line. Exit status: 0 where all could be read, 1 where some could not (stderr says which), 2 where
the command or the registry is wrong.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TextIO, get_args

from tqdm import tqdm

from gui import batch, command_line, images, process, registry, words
from gui.archives import File
from gui.batch import Result
from gui.registry import Square
from stages.common.errors import UserError

SMALL = 2**16  # bytes: Python makes room for as many as it is asked to read, which for many small files takes its time
SOME_UNREADABLE = 1  # the exit status
CLASSIFIED, UNREADABLE = "classified", "unreadable"
EXTENSIONS = tuple(f".{extension}" for extension in images.EXTENSIONS)


def main() -> None:
    arguments = _arguments()
    process.set_up()
    for stream in (sys.stdin, sys.stdout):
        if hasattr(stream, "reconfigure"):
            # File names are bytes: those that are no UTF-8 go out as they came in.
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    with command_line.one_line_errors("classify"):
        unreadable = run(arguments)
    sys.exit(SOME_UNREADABLE if unreadable else 0)


def run(arguments: argparse.Namespace) -> int:
    """Classify files; what cannot be read is told on stderr at once. Returns how many could not.

    UserError where nothing can be classified; then no CSV file is left.
    """
    paths = arguments.paths
    if not paths and (sys.stdin is None or sys.stdin.isatty()):
        raise UserError("no images: name files or folders, or `-` and give their paths on stdin")
    with _output(arguments.csv) as stream:
        model = command_line.load(arguments.model, arguments.threads)
        # Rows that scroll by are progress enough.
        watched = sys.stderr.isatty() and not (stream is sys.stdout and stream.isatty())
        total = sum(1 for _ in files_of(paths)) if watched and paths and "-" not in paths else None
        counts: Counter[str] = Counter()
        started = time.perf_counter()
        with tqdm(total=total, unit=" images", disable=not watched, dynamic_ncols=True) as bar:
            classified = batch.classify(model, files_of(paths or ["-"]), arguments.square, arguments.top)
            results = _counted(classified, counts, bar)
            if arguments.csv:
                batch.write_csv(results, stream)
            else:
                for result in results:
                    stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in result.rows)
            stream.flush()
        seconds = time.perf_counter() - started
        if not counts:
            raise UserError(f"no images in {', '.join(paths) or 'what stdin lists'}")
    rate = f"{seconds:,.2f} s, {counts[CLASSIFIED] / seconds:,.1f} a second"
    print(f"{counts[CLASSIFIED]:,} images classified by {model.version} ({rate})", file=sys.stderr)
    if model.ood["threshold"] is None:
        print(words.ood_rule(model), file=sys.stderr)
    if counts[UNREADABLE]:
        print(f"{counts[UNREADABLE]:,} could not be read, see above", file=sys.stderr)
    return counts[UNREADABLE]


def files_of(paths: Iterable[str]) -> Iterator[File]:
    """The files that paths stand for, one by one: images in folders, and for `-` what stdin lists."""
    for path in paths:
        named = (line.rstrip("\r\n") for line in sys.stdin) if path == "-" else [path]
        for each in named:
            if os.path.isdir(each):  # noqa: PTH112 - no Path is built for each of many files
                yield from _in_folder(each)
            elif each:
                yield File(each, partial(_read, each))


def _in_folder(folder: str) -> Iterator[File]:
    closed: list[OSError] = []
    for parent, folders, names in os.walk(folder, onerror=closed.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                path = os.path.join(parent, name)  # noqa: PTH118
                yield File(path, partial(_read, path))
    for error in closed:
        yield File(str(error.filename), partial(_fail, error))


def _read(path: str) -> bytes:
    with open(path, "rb") as stream:  # noqa: PTH123 - as above
        content = stream.read(SMALL)
        if len(content) == SMALL:
            content += stream.read(images.MAX_MEGABYTES * 2**20)
    return content


def _fail(error: OSError) -> bytes:
    raise error


def _counted(results: Iterable[Result], counts: Counter[str], bar: "tqdm[Any]") -> Iterator[Result]:
    """The results as they pass by; those without rows are told on stderr."""
    for result in results:
        bar.update()
        counts[UNREADABLE if result.error else CLASSIFIED] += 1
        if result.error:
            bar.write(f"{result.image}: {result.error}", file=sys.stderr)
        yield result


@contextmanager
def _output(csv_file: str | None) -> Iterator[TextIO]:
    """Where the rows go. A file appears under its name when it is complete, and not at all where that fails."""
    if csv_file is None or csv_file == "-":
        yield sys.stdout
        return
    file = Path(csv_file)
    if file.exists() and not file.is_file():
        raise UserError(f"--csv {file}: this is no file: name one that may be written")
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with unfinished.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
            yield stream
        unfinished.replace(file)
    except OSError as error:
        raise UserError(f"--csv {file}: it cannot be written ({error.strerror}): name another file") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gui.classify", description=__doc__)
    parser.add_argument("paths", nargs="*", metavar="IMAGE", help="image files and folders of them; - for stdin")
    command_line.add_options(parser)
    parser.add_argument("--csv", metavar="FILE", help="write CSV into FILE, one line for each row; - for stdout")
    parser.add_argument(
        "--square", choices=get_args(Square), help="keep the centre or pad with white (default: as the model says)"
    )
    parser.add_argument("--top", type=int, metavar="K", help=f"rows for each image (default: {registry.TOP_K})")
    return parser.parse_args()


if __name__ == "__main__":
    main()
