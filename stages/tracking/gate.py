"""Which model becomes champion."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """A model that may become champion; val_top1 is its accuracy on the validation split, between 0 and 1."""

    model: str
    val_top1: float


@dataclass(frozen=True)
class Decision:
    """champion: name of the model; reason: one sentence with the numbers it rests on."""

    champion: str
    reason: str


def choose_champion(candidates: Sequence[Candidate]) -> Decision:
    """The candidate that is best on the validation split; of equals the one named first. The test split has no say."""
    ranked = sorted(candidates, key=lambda candidate: -candidate.val_top1)  # stable: equals keep their order
    best, others = ranked[0], ranked[1:]
    reason = f"{best.model} is champion with {best.val_top1:.2%} top-1 on val"
    if others:
        reason += ", before " + ", ".join(f"{other.model} ({other.val_top1:.2%})" for other in others)
    return Decision(best.model, reason)
