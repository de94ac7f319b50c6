"""Which model to ship, and what speaks for another one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.report.candidate import Candidate

CLEARLY = 1.2  # times: a smaller advantage in cost is not worth a word
COSTS = {"speed": "latency_p50_ms", "size": "weights_bytes", "training": "training_seconds"}


@dataclass(frozen=True)
class Lead:
    """The shipped model's top-1 less that of another, on the same test images.

    points: shares, negative where it is behind; low, high: the 95 % interval; p: corrected for all pairs.
    """

    over: str
    points: float
    low: float
    high: float
    p: float
    is_significant: bool


@dataclass(frozen=True)
class Recommendation:
    """The best model on validation, its leads over the others, and which of those are clearly cheaper.

    savings: by model, how many times as fast (speed), as small (size), as quick to train (training) it is.
    """

    best: Candidate
    leads: Sequence[Lead]
    savings: Mapping[str, Mapping[str, float]]


def recommend(ranked: Sequence[Candidate], pairs: Sequence[Mapping[str, Any]]) -> Recommendation:
    """ranked: best on validation first. pairs: of model_comparison.compare."""
    best, others = ranked[0], ranked[1:]
    ratios = {
        other.name: {cost: best.profile[key] / other.profile[key] for cost, key in COSTS.items()} for other in others
    }
    clear = {name: {cost: times for cost, times in own.items() if times >= CLEARLY} for name, own in ratios.items()}
    return Recommendation(
        best,
        [_lead(best.name, other.name, pairs) for other in others],
        {name: own for name, own in clear.items() if own},
    )


def _lead(best: str, other: str, pairs: Sequence[Mapping[str, Any]]) -> Lead:
    pair = next(pair for pair in pairs if {pair["first"], pair["second"]} == {best, other})
    sign = 1 if pair["first"] == best else -1
    low, high = sorted((sign * pair["low"], sign * pair["high"]))
    return Lead(other, sign * pair["difference"], low, high, pair["adjusted"], pair["is_significant"])
