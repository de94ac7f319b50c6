"""Several models on the same pictures: who is better beyond luck, where they err, what they know together."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.special import softmax

from stages.evaluation import errors, significance
from stages.evaluation.summary import rounded

MEAN = "mean of all"
PAIRS_SHOWN, MISTAKES_SHOWN, SUSPECTS_SHOWN = 10, 8, 16


def compare(logits: Mapping[str, np.ndarray], labels: np.ndarray, temperatures: Mapping[str, float]) -> dict[str, Any]:
    """What comparison.json says of the models, as JSON, numbers rounded to 6 decimals.

    logits: by model, (N, C) of the same test pictures; labels: (N,) integer; temperatures: by model, from validation.
    Rows count these N pictures; classes are indices.
    """
    predicted = {name: own.argmax(axis=1) for name, own in logits.items()}
    right = {name: answers == labels for name, answers in predicted.items()}
    pairs = significance.compare_pairs(right)
    return rounded(
        {
            "pictures": len(labels),
            "ranking": [{"place": place, "model": name} for place, name in significance.ranks(right, pairs)],
            "pairs": [asdict(pair) | {"is_distinguishable": pair.is_distinguishable} for pair in pairs],
            "agreement": [
                {"first": first, "second": second, "share": share}
                for first, second, share in errors.agreement(predicted)
            ],
            "ensemble": _ensemble(logits, labels, temperatures, right),
            "missed_by_all": _missed(logits, labels, temperatures, predicted),
            "models": {
                name: {
                    "confused_pairs": errors.confused_pairs(predicted[name], labels, own.shape[1], PAIRS_SHOWN),
                    "mistakes": errors.confident_mistakes(own, labels, temperatures[name], MISTAKES_SHOWN),
                }
                for name, own in logits.items()
            },
        }
    )


def _ensemble(
    logits: Mapping[str, np.ndarray],
    labels: np.ndarray,
    temperatures: Mapping[str, float],
    right: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    together = errors.mean_of_models(logits, temperatures).argmax(axis=1) == labels
    best = max(right, key=lambda name: right[name].sum())
    low, high = significance.bootstrap_interval(together)
    # One question of its own, so no correction.
    (pair,) = significance.compare_pairs({MEAN: together, best: right[best]})
    sign = 1 if pair.first == MEAN else -1
    return {
        "top1": float(together.mean()),
        "top1_low": low,
        "top1_high": high,
        "best_single": best,
        "gain": sign * pair.difference,
        "gain_low": min(sign * pair.low, sign * pair.high),
        "gain_high": max(sign * pair.low, sign * pair.high),
        "p_value": pair.p_value,
        "one_is_right": float(np.any(list(right.values()), axis=0).mean()),
    }


def _missed(
    logits: Mapping[str, np.ndarray],
    labels: np.ndarray,
    temperatures: Mapping[str, float],
    predicted: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    rows = errors.missed_by_all(predicted, labels)
    answers = np.array(list(predicted.values()))[:, rows]
    unanimous = rows[(answers == answers[0]).all(axis=0)]
    # Where all name the same other class, and are sure of it, the label itself may be wrong.
    said = next(iter(predicted.values()))[unanimous]
    confidence = np.min(
        [
            softmax(own[unanimous].astype(np.float64) / temperatures[name], axis=1)[np.arange(len(unanimous)), said]
            for name, own in logits.items()
        ],
        axis=0,
    )
    surest = np.argsort(-confidence, kind="stable")[:SUSPECTS_SHOWN]
    return {
        "pictures": len(rows),
        "share": len(rows) / len(labels),
        "same_class": len(unanimous),
        "suspects": [
            {
                "row": int(unanimous[index]),
                "label": int(labels[unanimous[index]]),
                "predicted": int(said[index]),
                "probability": float(confidence[index]),
            }
            for index in surest
        ],
    }
