"""What to ship, in three sentences, from the numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from stages.report.candidate import Candidate, listed

CLEARLY = 1.2  # times: a smaller advantage in cost is not worth a word


def verdict(ranked: Sequence[Candidate], findings: Mapping[str, Any], dataset: Mapping[str, Any]) -> str:
    """Which model and how good it is; what its lead is worth; what speaks for another one.

    ranked: best on validation first. findings: of metrics.comparison.
    """
    best, others = ranked[0], ranked[1:]
    sentences = [
        f"**Ship {best.name}**: it names the right one of {len(dataset['class_names'])} classes for "
        f"{best.test['top1']:.1%} of {dataset['counts']['test']:,} test pictures (95 % interval "
        f"{best.test['top1_low']:.1%} to {best.test['top1_high']:.1%}; chosen for its {best.val_top1:.1%} on "
        f"{dataset['counts']['val']:,} validation pictures), in {best.milliseconds} ms a picture, after {best.minutes} "
        "minutes of training."
    ]
    if others:
        leads = [_lead(best.name, other.name, findings["pairs"]) for other in others]
        sentences.append(f"On the same test pictures it is {listed(leads)}.")
        gains = [f"{other.name} is {listed(found)}" for other in others if (found := _gains(best, other))]
        sentences.append(
            f"Unless you need less: {'; '.join(gains)}."
            if gains
            else f"Neither is {listed([other.name for other in others])} clearly faster, smaller or quicker to train."
        )
    return " ".join(sentences)


def _lead(best: str, other: str, pairs: Sequence[Mapping[str, Any]]) -> str:
    pair = next(pair for pair in pairs if {pair["first"], pair["second"]} == {best, other})
    points, low, high = (100 * pair[key] for key in ("difference", "low", "high"))
    if not pair["is_distinguishable"]:
        return f"not distinguishable from {other} (p = {pair['adjusted']:.2g})"
    place = "ahead of" if pair["first"] == best else "behind"
    return f"{points:.1f} points {place} {other} ({low:.1f} to {high:.1f})"


def _gains(best: Candidate, other: Candidate) -> list[str]:
    return [
        f"{ratio:.1f} times {what}"
        for key, what in (
            ("latency_p50_ms", "as fast on one picture"),
            ("weights_bytes", "as small"),
            ("training_seconds", "as quick to train"),
        )
        if (ratio := best.profile[key] / other.profile[key]) >= CLEARLY
    ]
