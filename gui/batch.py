"""Many images at once: decoded by threads, classified together, one schema for CSV, JSON lines and HTTP.

Knows nothing of Streamlit.
"""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TextIO

import numpy as np

from gui import images
from gui.archives import File
from gui.images import ImageError
from gui.registry import Model, RegistryError, Square

AT_ONCE = 64  # images in one call of the model
READERS = min(8, os.cpu_count() or 1)  # of the largest images one is decoded at a time, see gui.images
DIGITS = 6  # of a probability in CSV


class Result(NamedTuple):
    """What became of one file: its rows, or the error that kept it from having any.

    rows: as ImageClassifier.rows in stages/inference/onnx_model.py gives them, with the file's name as `image`.
    """

    image: str | int
    rows: Sequence[dict[str, Any]] = ()
    error: str = ""


def classify(
    model: Model, files: Iterable[File], square: Square | None = None, top_k: int | None = None
) -> Iterator[Result]:
    """One result for each file, in order; one that cannot be read has its reason as `error` and stops nothing.

    square: for images that are not, see Model.prepare; top_k: see Model.top_k. RegistryError if the model fails on the
    first images that could be read, all of them. Memory holds the prepared images of two times AT_ONCE files.
    """
    top_k = model.top_k(top_k)
    works = False  # the model, on any image so far
    iterator = iter(files)
    groups = iter(lambda: list(islice(iterator, AT_ONCE)), [])
    pool = ThreadPoolExecutor(READERS, thread_name_prefix="reader")
    started = ((group, pool.map(partial(_prepared, model, square), group)) for group in groups)
    try:
        following = next(started, None)
        while following is not None:
            (group, reading), following = following, next(started, None)  # which is read while the model works on this
            prepared = list(reading)
            predictions = _predicted(model, [each for each in prepared if isinstance(each, np.ndarray)], top_k)
            failures = [each for each in predictions if isinstance(each, RegistryError)]
            if failures and len(failures) == len(predictions) and not works:
                raise failures[0]
            works = works or bool(predictions)
            rest = iter(predictions)
            for file, each in zip(group, prepared, strict=True):
                outcome = next(rest) if isinstance(each, np.ndarray) else each
                if isinstance(outcome, list):
                    yield Result(file.name, [row | {"image": file.name} for row in outcome])
                else:
                    yield Result(file.name, error=str(outcome))
    finally:
        pool.shutdown(cancel_futures=True)


def write_csv(results: Iterable[Result], stream: TextIO, *, errors: bool = False) -> None:
    """The rows as CSV: sets joined by commas; true, false or nothing; file names as no spreadsheet takes for formulas.

    errors: with a column of them, and a row for each file that has one.
    """
    from stages.inference.onnx_model import COLUMNS  # imports the runtime, which takes its time

    writer = csv.DictWriter(stream, [*COLUMNS, "error"] if errors else COLUMNS, lineterminator="\n")
    writer.writeheader()
    for result in results:
        name = str(result.image)
        if name.startswith(("=", "+", "-", "@", "\t", "\r")):  # a formula, unless a quote stands before
            name = f"'{name}"
        for row in result.rows:
            probability, names = round(row["probability"], DIGITS), ", ".join(row["prediction_set"])
            outside = {None: "", True: "true", False: "false"}[row["out_of_distribution"]]
            texts = {"image": name, "probability": probability, "prediction_set": names, "out_of_distribution": outside}
            writer.writerow(row | texts)
        if errors and result.error:
            writer.writerow({"image": name, "error": result.error})


def _prepared(model: Model, square: Square | None, file: File) -> np.ndarray | str:
    """What the network gets of a file, (S, S, 3) uint8, or why there is none."""
    try:
        return model.prepare(images.load(file.read()), square)
    except OSError as error:
        return error.strerror or type(error).__name__
    except (ImageError, RegistryError, ValueError) as error:  # ValueError: a name with a null byte in it
        return str(error)


def _predicted(model: Model, prepared: list[np.ndarray], top_k: int) -> list[list[dict[str, Any]] | RegistryError]:
    """The rows of each image, or what kept the model from that: it may fail on one of them only."""
    if not prepared:
        return []
    try:
        return [*model.rows(model.logits(np.stack(prepared)), top_k)]
    except RegistryError as error:
        if len(prepared) == 1:
            return [error]
    return [rows for image in prepared for rows in _predicted(model, [image], top_k)]
