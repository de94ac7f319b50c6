"""Many pictures at once: each decoded, made square and shrunk by itself, classified together with others.

Knows nothing of Streamlit.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from gui import pictures
from gui.archives import File
from gui.pictures import PictureError, Squaring
from gui.registry import Model, RegistryError

AT_ONCE = 16  # pictures in one call of the model


@dataclass(frozen=True)
class Row:
    """What became of one file: an answer, or the reason why there is none.

    confidence: between 0 and 1; likely: the 90 % prediction set, "maple, oak"; strange: unlike the training pictures.
    """

    file: str
    class_name: str = ""
    superclass_name: str = ""
    confidence: float | None = None
    likely: str = ""
    strange: bool | None = None
    problem: str = ""


def classify(model: Model, files: Sequence[File], squaring: Squaring) -> Iterator[Row]:
    """One row for each file, in order; a file that cannot be read has its reason as `problem` and stops nothing.

    Holds the pixels of one picture and AT_ONCE shrunk ones. RegistryError if the model fails on the first
    ones, all of them.
    """
    answered = False
    for start in range(0, len(files), AT_ONCE):
        group = files[start : start + AT_ONCE]
        seen: list[np.ndarray] = []
        problems: dict[int, str] = {}
        for place, file in enumerate(group):
            try:
                seen.append(model.sees(pictures.square(pictures.load(file.read()), squaring)))
            except (PictureError, RegistryError) as error:
                problems[place] = str(error)
        answers = _answers(model, seen)
        if answers and not answered and all(isinstance(answer, RegistryError) for answer in answers):
            raise answers[0]  # type: ignore[misc] # it is one of these
        rest = iter(answers)
        for place, file in enumerate(group):
            answer = problems[place] if place in problems else next(rest)
            if isinstance(answer, np.ndarray):
                answered = True
                yield _row(model, file.name, answer)
            else:
                yield Row(file.name, problem=str(answer))


def as_csv(rows: Sequence[Row]) -> str:
    """The rows as CSV with a line of names; spreadsheets take no file's name for a formula."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(field.name for field in fields(Row))
    for row in rows:
        confidence = "" if row.confidence is None else f"{row.confidence:.4f}"
        strange = "" if row.strange is None else row.strange
        writer.writerow(
            [no_formula(row.file), row.class_name, row.superclass_name, confidence, row.likely, strange, row.problem]
        )
    return text.getvalue()


def no_formula(name: str) -> str:
    """A file's name for a cell of a spreadsheet, which takes some for formulas unless a quote stands before."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name


def _answers(model: Model, seen: Sequence[np.ndarray]) -> list[np.ndarray | RegistryError]:
    """The probabilities of each picture, (C,), or what kept the model from giving any."""
    if not seen:
        return []
    try:
        return list(model.probabilities(np.stack(seen)))
    except RegistryError as error:
        if len(seen) == 1:
            return [error]
    return [answer for picture in seen for answer in _answers(model, [picture])]  # it may fail on one of them only


def _row(model: Model, name: str, probabilities: np.ndarray) -> Row:
    answer = model.answers(probabilities, 1)[0]
    likely = model.prediction_set(probabilities, "90")
    return Row(
        file=name,
        class_name=answer.class_name,
        superclass_name=answer.superclass_name,
        confidence=answer.confidence,
        likely=", ".join(likely or []),
        strange=model.is_unfamiliar(probabilities),
    )
