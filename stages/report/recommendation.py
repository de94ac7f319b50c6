"""Which model to ship, and what speaks for another one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.report.candidate import Candidate

CLEARLY = 1.2  # times: a smaller advantage in cost is not worth a word
COSTS = {"speed": "latency_p50_ms", "size": "weights_bytes", "training": "training_seconds"}


@dataclass(frozen=True)
class Recommendation:
    """The best model on validation, its leads over the others, and which of those are clearly cheaper.

    leads: by model, its pair with the best one, seen from that: difference (negative where the best one is behind), low
    and high of top-1 on test. savings: by model, how many times as fast (speed), as small (size), as quick to train
    (training) it is.
    """

    best: Candidate
    leads: Mapping[str, Mapping[str, Any]]
    savings: Mapping[str, Mapping[str, float]]


def recommend(ranked: Sequence[Candidate], pairs: Sequence[Mapping[str, Any]]) -> Recommendation:
    """ranked: best on validation first. pairs: of model_comparison.compare."""
    best, *others = ranked
    leads: dict[str, Mapping[str, Any]] = {}
    savings: dict[str, Mapping[str, float]] = {}
    for other in others:
        [pair] = [pair for pair in pairs if {pair["first"], pair["second"]} == {best.name, other.name}]
        turned = {"difference": -pair["difference"], "low": -pair["high"], "high": -pair["low"]}
        leads[other.name] = pair if pair["first"] == best.name else {**pair, **turned}
        ratios = {cost: best.profile[key] / other.profile[key] for cost, key in COSTS.items()}
        if clear := {cost: times for cost, times in ratios.items() if times >= CLEARLY}:
            savings[other.name] = clear
    return Recommendation(best, leads, savings)
