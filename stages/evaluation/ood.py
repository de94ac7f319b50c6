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
# There is no flag where on near or on far images for choosing, mean of kinds, one of these is not reached.
LOWEST_AUROC = 0.6
LOWEST_FLAGGED = 2 * FALSE_ALARMS  # share: AUROC may be fair although the threshold catches hardly any

SHRINKAGE = 0.001  # of covariances

ByKind = Mapping[str, np.ndarray]  # logits (N, C) by kind of OOD images


def summarize(
    val: np.ndarray, labels: np.ndarray, test: np.ndarray, choosing: ByKind, reported: ByKind, temperature: float
) -> dict[str, Any]:
    """What metrics say of OOD images, from logits (N, C) of the splits and of images for choosing and for the report.

    labels: of val. One half of val is the reference, the other gives threshold and AUROC.

    score: of `ood_scores`; chosen: by score, AUROC of near and far, means over kinds, on images for choosing;
    threshold: of the score, below which an image is flagged, null where none is, for a reason; flagged_test: share of
    test images flagged; by_kind: distance (near, far), images, auroc with its 95 % interval, flagged (share).
    """
    known = reference(val / temperature, labels)
    inside = ood_scores(val[_halves(len(val))[1]] / temperature, known)
    made = {kind: ood_scores(own / temperature, known) for kind, own in choosing.items()}
    chosen = {
        name: _near_and_far({kind: auroc(scores, own[name])[0] for kind, own in made.items()})
        for name, scores in inside.items()
    }
    score = max(chosen, key=lambda name: sum(chosen[name].values()))
    limit: float | None = float(np.quantile(inside[score], FALSE_ALARMS))
    caught = _near_and_far({kind: float((own[score] < limit).mean()) for kind, own in made.items()})
    reasons = [f"AUROC {value:.2f} on {name} images" for name, value in chosen[score].items() if value < LOWEST_AUROC]
    reasons += [
        f"only {share:.0%} of {name} images flagged" for name, share in caught.items() if share < LOWEST_FLAGGED
    ]
    limit = None if reasons else limit
    of_test = ood_scores(test / temperature, known)[score]
    outside = {kind: ood_scores(logits / temperature, known)[score] for kind, logits in reported.items()}
    return {
        "score": score,
        "chosen": chosen,
        "threshold": limit,
        "reason": ", ".join(reasons) or None,
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


def reference(logits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """What `ood_scores` needs for `mahalanobis`, float32, from one half of calibrated validation logits (N, C).

    On features, not logits, it does better for a weak model and no better for the others; but they would have to leave
    the network.
    """
    rows = _halves(len(labels))[0]
    centre = logits[rows].mean(axis=0, dtype=np.float64)
    own, classes = logits[rows] - centre, labels[rows]
    means = np.zeros((logits.shape[1],) * 2)  # of a class without images: the centre
    for label in np.unique(classes):
        means[label] = own[classes == label].mean(axis=0)
    found = {"centre": centre, "means": means, "within": _inverse(own - means[classes]), "overall": _inverse(own)}
    return {name: array.astype(np.float32) for name, array in found.items()}


def _halves(count: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(0).permutation(count)
    return order[: count // 2], order[count // 2 :]


def _inverse(rows: np.ndarray) -> np.ndarray:
    """Of the covariance of rows (N, C) around 0, shrunk towards equal variances: with few images it has no inverse."""
    covariance = rows.T @ rows / len(rows)
    variances = np.trace(covariance) / len(covariance)
    return np.linalg.pinv((1 - SHRINKAGE) * covariance + SHRINKAGE * variances * np.eye(len(covariance)))


def auroc(inside: np.ndarray, outside: np.ndarray) -> tuple[float, float, float]:
    """Chance that an in-distribution image scores higher than an OOD one, and its 95 % interval; scores (N,), (M,).

    0.5 is guessing, 1 separates perfectly. The variance is that of DeLong et al. (1988); the interval is Wilson's for
    as many images as would give a share that variance, or as the smaller set has: it holds at 0 and 1, too.
    """
    above, below = _higher(inside, outside), 1 - _higher(outside, inside)
    found = float(above.mean())
    variance = above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below)
    count = found * (1 - found) / variance if variance else min(len(inside), len(outside))
    return found, *wilson(found, count)


def _higher(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each score the share of the others that are lower; equal ones count a half."""
    ordered = np.sort(others)
    places = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
    return places / (2 * len(others))


def _near_and_far(by_kind: Mapping[str, float]) -> dict[str, float]:
    """Means over near and over far kinds."""
    return {
        "near": float(np.mean([value for kind, value in by_kind.items() if kind in NEAR])),
        "far": float(np.mean([value for kind, value in by_kind.items() if kind not in NEAR])),
    }


def _flagged(scores: np.ndarray, threshold: float | None) -> float | None:
    return None if threshold is None else float((scores < threshold).mean())
