"""What the model's numbers say, in plain words: HTML with every name escaped, but for what has none."""

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from gui.bars import percent
from gui.registry import Model

NAMED = 8  # classes of a set that are named at most; a longer one names fewer, and counts the rest
NAMED_OF_LONG = 5


def prediction_set(names: Sequence[str], coverage: str, num_classes: int) -> str:
    """The classes that hold the right one with a promised frequency: "one of: maple, oak, willow"."""
    sure = f"With {coverage}\N{NARROW NO-BREAK SPACE}% certainty"
    if len(names) == 1:
        return f"{sure}: <b>{escape(names[0])}</b>."
    if len(names) <= NAMED:
        return f"{sure} one of: <b>{escape(', '.join(names))}</b>."
    if 2 * len(names) <= num_classes:
        named = escape(", ".join(names[:NAMED_OF_LONG]))
        return f"{sure} one of {len(names)} classes: <b>{named}</b> and {len(names) - NAMED_OF_LONG} more."
    return f"{sure} nothing can be said: {len(names)} of {num_classes} classes are possible."


def promise(coverage: str) -> str:
    """What that certainty means."""
    sure = f"{coverage}\N{NARROW NO-BREAK SPACE}%"
    return f"(Such a line holds the right class for {sure} of pictures like the test pictures.)"


def strange(model: Model, row: np.ndarray) -> str:
    """The warning that a picture is unlike the training pictures, its score, the threshold, how often it errs."""
    return (
        f"This picture is unlike those the model learned from: its likeliest class has {percent(float(row.max()))}, "
        f"less than the {percent(model.unfamiliar_threshold or 0)} below which a picture counts as strange. The answer "
        f"may mean nothing. ({_wrongly(model)})"
    )


def how_strange(model: Model) -> str:
    """What makes a picture strange, and how often that errs."""
    if model.unfamiliar_threshold is None:
        return "This model cannot tell whether a picture is unlike those it learned from."
    threshold = percent(model.unfamiliar_threshold)
    return f"Unlike those the model learned from: the likeliest class has less than {threshold}. {_wrongly(model)}"


def _wrongly(model: Model) -> str:
    if model.flagged_familiar is None:
        return "The threshold is meant to flag 5\N{NARROW NO-BREAK SPACE}% of familiar pictures wrongly."
    return f"Of familiar pictures {percent(model.flagged_familiar)} get this warning wrongly."


def paragraphs(lines: Iterable[str]) -> str:
    """HTML of several lines of it."""
    return "".join(f"<p>{line}</p>" for line in lines)


def verdict(truth: str, answer: str) -> str:
    """Whether the answer to a picture of known class is right."""
    if truth == answer:
        return f"Right: the picture is filed as <b>{escape(truth)}</b>."
    return f"Wrong: the picture is filed as <b>{escape(truth)}</b>."


def reasons(class_name: str, confidence: float, lowest: float) -> str:
    """What the heat map found."""
    if confidence - lowest < 0.01:
        return f"No single part decides: hide any one, and <b>{escape(class_name)}</b> stays as likely."
    return (
        f"The more orange, the more the answer <b>{escape(class_name)}</b> rests on it: hiding what counts most "
        f"takes its confidence from {percent(confidence)} to {percent(lowest)}."
    )
