"""Which of two models adapts faster: seconds and images to given accuracies on held-out images.

A course is a table of images, seconds and val_top1 as a training goes on; between its points it is a straight line, and
it starts with guessing at 0.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

LEVELS = (0.1, 0.25, 0.5)  # top-1; above chance, and as far as one of the two models gets
OF_FINAL = 0.9  # a further level: this share of the lower final top-1
AXES = ("seconds", "images")

Verdict = Literal["Holds", "Does not hold", "Mixed", "Not decided"]
Courses = Mapping[int, pd.DataFrame]  # by seed


def courses(learning: pd.DataFrame, model: str, chance: float) -> dict[int, pd.DataFrame]:
    """The courses of a model, by seed; learning: columns model, seed, images, seconds, val_top1."""
    start = pd.DataFrame({"images": [0.0], "seconds": [0.0], "val_top1": [chance]})
    own = learning[learning["model"] == model].sort_values("images")
    return {
        int(seed): pd.concat([start, own.loc[own["seed"] == seed, list(start)].astype(float)], ignore_index=True)
        for seed in sorted(own["seed"].unique())
    }


def crossing(course: pd.DataFrame, level: float, axis: str) -> float:
    """Where on an axis a course first reaches a top-1; infinite where it never does."""
    top1, places = course["val_top1"].to_numpy(), course[axis].to_numpy()
    reached = np.flatnonzero(top1 >= level)
    if not len(reached):
        return math.inf
    after = reached[0]
    if after == 0:
        return float(places[0])
    before = after - 1
    share = (level - top1[before]) / (top1[after] - top1[before])
    return float(places[before] + share * (places[after] - places[before]))


def overtaking(slow: pd.DataFrame, fast: pd.DataFrame, axis: str) -> tuple[float, float] | None:
    """Where `slow` passes `fast` for good, and the top-1 there; None where it never leads or always does.

    A training that has ended keeps its last top-1.
    """
    grid = np.union1d(slow[axis], fast[axis])
    own, other = (np.interp(grid, course[axis], course["val_top1"]) for course in (slow, fast))
    lead = own - other
    behind = np.flatnonzero(lead < 0)
    if not len(behind) or behind[-1] == len(grid) - 1:
        return None
    before = behind[-1]
    share = -lead[before] / (lead[before + 1] - lead[before])
    place = grid[before] + share * (grid[before + 1] - grid[before])
    return float(place), float(np.interp(place, grid, own))


def compare(learning: pd.DataFrame, first: str, second: str, chance: float) -> dict[str, Any] | None:
    """As JSON: who of two models is first at each level, where one overtakes, and the verdict on "the first is faster".

    learning: as of `courses`. None where a model has no course. At a level a model is first on an axis if each of its
    seeds gets there before every seed of the other. Holds: the first model is first at every level on both axes; does
    not hold: the second is; not decided: nobody is anywhere; mixed: all else.
    """
    of_model = {name: courses(learning, name, chance) for name in (first, second)}
    if not all(of_model.values()):
        return None
    finals = {name: [course["val_top1"].iloc[-1] for course in own.values()] for name, own in of_model.items()}
    own_level = OF_FINAL * min(float(np.mean(tops)) for tops in finals.values())
    levels: list[dict[str, Any]] = [
        {"level": level, **{axis: _at(level, of_model, axis) for axis in AXES}}
        for level in sorted({*LEVELS, own_level})
        if level > chance and any(top1 >= level for tops in finals.values() for top1 in tops)
    ]
    return {
        "verdict": verdict([level[axis]["first"] for level in levels for axis in AXES], first, second),
        "seeds": {name: list(own) for name, own in of_model.items()},
        "levels": levels,
        "overtaking": {axis: _overtaken(of_model, axis) for axis in AXES},
    }


def verdict(winners: Sequence[str | None], first: str, second: str) -> Verdict:
    """winners: at every level on every axis who is first, None where the seeds do not agree."""
    found = set(winners)
    if found == {first}:
        return "Holds"
    if found == {second}:
        return "Does not hold"
    return "Mixed" if found - {None} else "Not decided"


def _at(level: float, of_model: Mapping[str, Courses], axis: str) -> dict[str, Any]:
    """first: a model or None; each: by model where each seed reaches the level, None where it does not."""
    places = {name: [crossing(course, level, axis) for course in own.values()] for name, own in of_model.items()}
    (one, of_one), (other, of_other) = places.items()
    first = one if max(of_one) < min(of_other) else other if max(of_other) < min(of_one) else None
    return {"first": first, "each": {name: [_finite(place) for place in own] for name, own in places.items()}}


def _overtaken(of_model: Mapping[str, Courses], axis: str) -> dict[str, Any] | None:
    """by: the model that passes the other for good; at, top1: where, for each seed; None unless all seeds agree."""
    (one, of_one), (other, of_other) = of_model.items()
    pairs = list(zip(of_one.values(), of_other.values(), strict=False))
    for slow, fast, found in (
        (one, other, [overtaking(own, rival, axis) for own, rival in pairs]),
        (other, one, [overtaking(rival, own, axis) for own, rival in pairs]),
    ):
        if len(places := [place for place in found if place]) == len(found):
            at, top1 = zip(*places, strict=True)
            return {"by": slow, "of": fast, "at": list(at), "top1": list(top1)}
    return None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
