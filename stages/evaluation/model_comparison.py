"""Several models on the same images: significant differences, agreement, ensemble, common mistakes."""

from collections.abc import Mapping
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from stages.evaluation import confusion, significance
from stages.evaluation.calibration import probabilities as calibrated
from stages.evaluation.summary import rounded, top1_with_interval

ENSEMBLE = "mean of all"
PAIRS_SHOWN, MISTAKES_SHOWN, SUSPECTS_SHOWN = 10, 8, 16


def compare(
    logits: Mapping[str, np.ndarray],
    labels: np.ndarray,
    metrics: Mapping[str, Mapping[str, Any]],
    right_by_seed: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """What comparison.json says of the models, as JSON, numbers rounded to 6 decimals.

    logits: by model, (N, C) for the same test images; labels: (N,) integer; metrics: by model, of summary.summarize.
    right_by_seed: by model, (S, N) bool: which of the images each of its seeds classifies correctly; None: one seed,
    that of the logits. It decides pairs and ranking; all else is of the logits. Classes and rows are indices.
    """
    predicted = {name: own.argmax(axis=1) for name, own in logits.items()}
    right = {name: own == labels for name, own in predicted.items()}
    temperatures = {name: own["calibration"]["temperature"] for name, own in metrics.items()}
    best_single = max(right, key=lambda name: metrics[name]["val"]["top1"])
    seeds = right_by_seed or right
    pairs = significance.compare_pairs(seeds)
    probabilities = {name: calibrated(own, temperatures[name]) for name, own in logits.items()}
    return rounded(
        {
            "images": len(labels),
            "ranking": [{"rank": rank, "model": name} for rank, name in significance.ranks(seeds, pairs)],
            "pairs": [asdict(pair) | {"is_significant": pair.is_significant} for pair in pairs],
            "agreement": [
                {"first": first, "second": second, "share": float((predicted[first] == predicted[second]).mean())}
                for first, second in combinations(predicted, 2)
            ],
            "ensemble": _ensemble(probabilities, labels, right, best_single),
            "missed_by_all": _missed_by_all(probabilities, labels, predicted),
            "models": {
                name: {
                    "confused_pairs": confusion.confused_pairs(predicted[name], labels, own.shape[1], PAIRS_SHOWN),
                    "mistakes": confusion.confident_mistakes(own, labels, temperatures[name], MISTAKES_SHOWN),
                }
                for name, own in logits.items()
            },
        }
    )


def _ensemble(
    probabilities: Mapping[str, np.ndarray], labels: np.ndarray, right: Mapping[str, np.ndarray], best: str
) -> dict[str, Any]:
    """The mean of all models' calibrated probabilities, against the single model that is best on validation."""
    together = np.mean(list(probabilities.values()), axis=0).argmax(axis=1) == labels
    # A single test, hence without Holm's correction.
    (pair,) = significance.compare_pairs({ENSEMBLE: together, best: right[best]})
    gain = pair.seen_from(ENSEMBLE)
    return {
        **top1_with_interval(together),
        "best_single": best,
        "gain": gain.difference,
        "gain_low": gain.low,
        "gain_high": gain.high,
        "p_value": gain.p_value,
        "one_is_right": float(np.any(list(right.values()), axis=0).mean()),
    }


def _missed_by_all(
    probabilities: Mapping[str, np.ndarray], labels: np.ndarray, predicted: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    by_model = np.array(list(predicted.values()))
    rows = np.flatnonzero((by_model != labels).all(axis=0))
    unanimous = rows[(by_model[:, rows] == by_model[0, rows]).all(axis=0)]
    # Where all models predict the same other class with confidence, the label itself may be wrong.
    same = by_model[0, unanimous]
    confidence = np.min([own[unanimous, same] for own in probabilities.values()], axis=0)
    return {
        "images": len(rows),
        "share": len(rows) / len(labels),
        "same_class": len(unanimous),
        "suspects": confusion.surest(unanimous, labels[unanimous], same, confidence, SUSPECTS_SHOWN),
    }
