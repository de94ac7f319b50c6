"""What the model's numbers say, in plain words: HTML with every name escaped, but for what has none."""

from collections.abc import Iterable, Sequence
from html import escape

from gui.bars import percent
from gui.registry import Model

NAMED = 8  # classes of a set that are named at most; a longer one names fewer, and counts the rest
NAMED_OF_LONG = 5
SET = "90\N{NARROW NO-BREAK SPACE}% prediction set"
PROMISE = "Over many pictures like the test pictures it holds the right class 9 times in 10."


def prediction_set(names: Sequence[str], num_classes: int) -> str:
    """The prediction set of a picture: "90 % prediction set: maple, oak, willow."."""
    if len(names) <= NAMED:
        return f"{SET}: <b>{escape(', '.join(names))}</b>."
    if 2 * len(names) <= num_classes:
        named = escape(", ".join(names[:NAMED_OF_LONG]))
        return f"{SET}: {len(names)} classes, <b>{named}</b> and {len(names) - NAMED_OF_LONG} more."
    return f"{SET}: {len(names)} of {num_classes} classes, which says next to nothing."


def out_of_distribution(model: Model, probability: float) -> str:
    """The warning that a picture is out of distribution; probability: of its likeliest class."""
    return (
        f"This picture is out of distribution, unlike those the model learned from: its likeliest class has "
        f"{percent(probability)}, less than the threshold of {percent(model.ood_threshold or 0)}. The answer may mean "
        f"nothing. ({_wrongly(model)})"
    )


def how_out_of_distribution(model: Model) -> str:
    """What puts a picture out of distribution, and how often that errs."""
    if model.ood_threshold is None:
        return "This model cannot tell whether a picture is unlike those it learned from."
    threshold = percent(model.ood_threshold)
    return f"Unlike those the model learned from: the likeliest class has less than {threshold}. {_wrongly(model)}"


def _wrongly(model: Model) -> str:
    if model.ood_flagged is None:
        return "The threshold is meant to flag 5\N{NARROW NO-BREAK SPACE}% of pictures like the test pictures wrongly."
    return f"{percent(model.ood_flagged)} of the test pictures get this warning wrongly."


def paragraphs(lines: Iterable[str]) -> str:
    """HTML of several lines of it."""
    return "".join(f"<p>{line}</p>" for line in lines)


def verdict(truth: str, answer: str) -> str:
    """Whether the answer to a picture of known class is right."""
    if truth == answer:
        return f"Right: the picture is filed as <b>{escape(truth)}</b>."
    return f"Wrong: the picture is filed as <b>{escape(truth)}</b>."


def reasons(class_name: str, probability: float, lowest: float) -> str:
    """What the heat map found."""
    if probability - lowest < 0.01:
        return f"No single part decides: hide any one, and <b>{escape(class_name)}</b> stays as likely."
    return (
        f"The more orange, the more the answer <b>{escape(class_name)}</b> rests on it: hiding what counts most "
        f"takes its probability from {percent(probability)} to {percent(lowest)}."
    )
