"""Whether a score of the logits tells out-of-distribution (OOD) images from those of the data set.

Of `ood_scores` each model takes the one that does best on OOD images made for choosing, mean of near and
far (see stages.data.ood). Where even that one does badly on them there is no flag. Reported are other images.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from stages.data.ood import NEAR
from stages.evaluation.significance import wilson
from stages.inference.onnx_model import ood_scores

FALSE_ALARMS = 0.05  # share of in-distribution images that the threshold flags
LOWEST_AUROC = 0.6  # on near and on far images for choosing; below it there is no flag

ByKind = Mapping[str, np.ndarray]  # logits (N, C) by kind of OOD images


def summarize(
    val: np.ndarray, test: np.ndarray, choosing: ByKind, reported: ByKind, temperature: float
) -> dict[str, Any]:
    """What metrics say of OOD images, from logits (N, C) of the splits and of images for choosing and for the report.

    score: of `ood_scores`; chosen: by score, AUROC of near and far, means over kinds, on images for choosing;
    threshold: of the score, below which an image is flagged, null where none is, for a reason; flagged_test: share of
    test images flagged; by_kind: distance (near, far), images, auroc with its 95 % interval, flagged (share).
    """
    inside = ood_scores(val / temperature)
    made = {kind: ood_scores(own / temperature) for kind, own in choosing.items()}
    chosen = {name: _near_and_far(scores, {k: own[name] for k, own in made.items()}) for name, scores in inside.items()}
    score = max(chosen, key=lambda name: sum(chosen[name].values()))
    bad = [f"{value:.2f} on {name}" for name, value in chosen[score].items() if value < LOWEST_AUROC]
    limit = None if bad else float(np.quantile(inside[score], FALSE_ALARMS))
    of_test = ood_scores(test / temperature)[score]
    outside = {kind: ood_scores(logits / temperature)[score] for kind, logits in reported.items()}
    return {
        "score": score,
        "chosen": chosen,
        "threshold": limit,
        "reason": f"AUROC {' and '.join(bad)} images is below {LOWEST_AUROC:g}" if bad else None,
        "flagged_test": _flagged(of_test, limit),
        "by_kind": {
            kind: {
                "distance": "near" if kind in NEAR else "far",
                "images": len(own),
                **dict(zip(("auroc", "low", "high"), auroc(of_test, own), strict=True)),
                "flagged": _flagged(own, limit),
            }
            for kind, own in outside.items()
        },
    }


def auroc(inside: np.ndarray, outside: np.ndarray) -> tuple[float, float, float]:
    """Chance that an in-distribution image scores higher than an OOD one, and its 95 % interval; scores (N,), (M,).

    0.5 is guessing, 1 separates perfectly. The variance is that of DeLong et al. (1988); the interval is Wilson's for
    as many images as would give a share that variance, or as the smaller set has: it holds at 0 and 1, too.
    """
    above, below = _higher(inside, outside), 1 - _higher(outside, inside)
    found = float(above.mean())
    variance = above.var() / len(above) + below.var() / len(below)
    count = found * (1 - found) / variance if variance else min(len(inside), len(outside))
    return found, *wilson(found, count)


def _higher(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each score the share of the others that are lower; equal ones count a half."""
    ordered = np.sort(others)
    places = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
    return places / (2 * len(others))


def _near_and_far(inside: np.ndarray, outside: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Mean AUROC of near and of far kinds, from scores."""
    found = {kind: auroc(inside, scores)[0] for kind, scores in outside.items()}
    return {
        "near": float(np.mean([value for kind, value in found.items() if kind in NEAR])),
        "far": float(np.mean([value for kind, value in found.items() if kind not in NEAR])),
    }


def _flagged(scores: np.ndarray, threshold: float | None) -> float | None:
    return None if threshold is None else float((scores < threshold).mean())
