"""What the numbers of an answer mean, in words. HTML with every name escaped, unless it says otherwise."""

from collections.abc import Sequence
from html import escape

from gui.bars import percent
from gui.registry import Model

NAMED = 8  # classes of a prediction set, at most
SET = "Prediction set (90\N{NARROW NO-BREAK SPACE}%)"
SCORES = {
    "probability": "The probability of the top class",
    "logit": "The logit of the top class",
    "energy": "The energy score",
    "entropy": "The negative entropy",
    "mahalanobis": "The relative Mahalanobis score",
}
PROMISE = f"{SET}: over many images it holds the right class 9 times in 10."


def prediction_set(names: Sequence[str], num_classes: int) -> str:
    """The prediction set of an image: "Prediction set (90 %), 2 of 100 classes: maple, oak"."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{SET}, {len(names)} of {num_classes} classes: <b>{escape(', '.join(names[:NAMED]))}</b>{more}"


def ood_rule(model: Model) -> str:
    """When an image counts as out-of-distribution, and how often that is wrong; plain text."""
    score, threshold = model.ood["score"], model.ood["threshold"]
    if threshold is None:
        return f"This model flags no image as out-of-distribution: {model.ood['reason']}."
    wrongly = "about 5\N{NARROW NO-BREAK SPACE}%" if model.ood_flagged is None else percent(model.ood_flagged)
    limit = percent(threshold) if score == "probability" else f"{threshold:.2f}"
    return f"{SCORES[score]} is below {limit}, as on {wrongly} of the test images."


def verdict(truth: str, predicted: str) -> str:
    """Whether the answer to a test image is right."""
    return f"{'Right' if predicted == truth else 'Wrong'}: the label is <b>{escape(truth)}</b>"


def explanation(class_name: str, probability: float, lowest: float) -> str:
    """What the heat map shows. lowest: the probability left where the most important part is hidden."""
    if probability - lowest < 0.01:
        return f"No single part decides: hiding any one of them leaves <b>{escape(class_name)}</b> as probable."
    return (
        f"Orange: what <b>{escape(class_name)}</b> rests on. Hiding the most important part lowers its probability "
        f"from {percent(probability)} to {percent(lowest)}."
    )
