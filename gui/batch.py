"""Many images at once: read by threads, classified together; their answers in one schema, whatever they are written as.

Knows nothing of Streamlit.
"""

import csv
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, TextIO

import numpy as np

from gui import pictures
from gui.archives import File
from gui.pictures import PictureError
from gui.registry import Classified, Model, RegistryError, Square

AT_ONCE = 64  # images in one call of the model
READERS = min(8, os.cpu_count() or 1)  # of the largest images one is decoded at a time, see gui.pictures
COLUMNS = ("image", "rank", "class", "superclass", "probability", "prediction_set", "out_of_distribution")
DIGITS = 6  # of a probability


@dataclass(frozen=True)
class Result:
    """What became of one file: an answer, or the reason why there is none."""

    image: str
    answer: Classified | None = None
    error: str = ""


def classify(model: Model, files: Iterable[File], square: Square | None, top_k: int) -> Iterator[Result]:
    """One result for each file, in order; one that cannot be read has its reason as `error` and stops nothing.

    square: for images that are not, see Model.prepare. RegistryError if the model fails on the first images that could
    be read, all of them. Memory holds the prepared images of two times AT_ONCE files.
    """
    answered = False
    pool = ThreadPoolExecutor(READERS, thread_name_prefix="reader")
    started = ((group, pool.map(partial(_prepared, model, square), group)) for group in _groups(files))
    try:
        following = next(started, None)
        while following is not None:
            (group, reading), following = following, next(started, None)  # which is read while the model works on this
            found = list(reading)
            answers = _answers(model, [each for each in found if isinstance(each, np.ndarray)], top_k)
            if not answered and answers and all(isinstance(answer, RegistryError) for answer in answers):
                raise answers[0]  # type: ignore[misc] # it is one of these
            rest = iter(answers)
            for file, each in zip(group, found, strict=True):
                answer = next(rest) if isinstance(each, np.ndarray) else each
                if isinstance(answer, Classified):
                    answered = True
                    yield Result(file.name, answer)
                else:
                    yield Result(file.name, error=str(answer))
    finally:
        pool.shutdown(cancel_futures=True)


def records(result: Result) -> list[dict[str, Any]]:
    """A row for each answer to an image, by COLUMNS; none where there is no answer."""
    answer = result.answer
    if answer is None:
        return []
    return [
        {
            "image": result.image,
            "rank": rank,
            "class": each.class_name,
            "superclass": each.superclass_name,
            "probability": round(each.probability, DIGITS),
            "prediction_set": answer.prediction_set,
            "out_of_distribution": answer.out_of_distribution,
        }
        for rank, each in enumerate(answer.answers, start=1)
    ]


def as_json(result: Result) -> dict[str, Any]:
    """The same of an image that has an answer, as one object."""
    rows = records(result)
    shared = {key: rows[0][key] for key in ("image", "out_of_distribution", "prediction_set")}
    return shared | {"answers": [{key: row[key] for key in ("class", "superclass", "probability")} for row in rows]}


def write_csv(results: Iterable[Result], stream: TextIO, *, errors: bool = False) -> None:
    """The same as CSV: sets joined by commas; true, false or nothing; file names as no spreadsheet takes for formulas.

    errors: with a column of them, and a row for each file without an answer.
    """
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*COLUMNS, "error"] if errors else COLUMNS)
    for result in results:
        name = _no_formula(result.image)
        if result.answer is not None:
            outside = {None: "", True: "true", False: "false"}[result.answer.out_of_distribution]
            likely = ", ".join(result.answer.prediction_set)
            for row in records(result):
                row |= {"image": name, "prediction_set": likely, "out_of_distribution": outside}
                writer.writerow([*row.values(), ""] if errors else row.values())
        elif errors:
            writer.writerow([name, *[""] * (len(COLUMNS) - 1), result.error])


def _groups(files: Iterable[File]) -> Iterator[list[File]]:
    iterator = iter(files)
    while group := list(islice(iterator, AT_ONCE)):
        yield group


def _prepared(model: Model, square: Square | None, file: File) -> np.ndarray | str:
    """What the network gets of a file, (S, S, 3) uint8, or why there is none."""
    try:
        return model.prepare(pictures.load(file.read()), square)
    except (PictureError, RegistryError) as error:
        return str(error)


def _answers(model: Model, images: list[np.ndarray], top_k: int) -> list[Classified | RegistryError]:
    """What the model says of each image, or what kept it from that: it may fail on one of them only."""
    if not images:
        return []
    try:
        return [*model.classified(model.probabilities(np.stack(images)), top_k)]
    except RegistryError as error:
        if len(images) == 1:
            return [error]
    return [answer for image in images for answer in _answers(model, [image], top_k)]


def _no_formula(name: str) -> str:
    """A file's name for a cell of a spreadsheet, which takes some for formulas unless a quote stands before."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name
