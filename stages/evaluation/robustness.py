"""Top-1 on corrupted images, and out-of-distribution detection."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from stages.evaluation import accuracy, ood
from stages.evaluation.summary import Predictions, rounded


def top1_by_severity(clean: Predictions, corrupted: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """Top-1 under each corruption: first of the clean images, then of each severity.

    clean: predictions for the n images; corrupted: by corruption, logits (severities, n, C) for the same images.
    """
    before = accuracy.top_k(*clean, 1)
    return {
        name: [before, *(accuracy.top_k(logits, clean.labels, 1) for logits in by_severity)]
        for name, by_severity in corrupted.items()
    }


def summarize(
    clean: Predictions,
    corrupted: Mapping[str, np.ndarray],
    test: np.ndarray,
    ood_logits: Mapping[str, np.ndarray],
    threshold: float,
    temperature: float,
) -> dict[str, Any]:
    """What reports/robustness.json says of a model; numbers rounded to 6 decimals.

    clean, corrupted: see top1_by_severity. test: logits (N, C) of all test images; ood_logits: by kind, (n, C).
    threshold, temperature: fitted on validation, see summary.summarize.
    """
    means = {name: float(np.mean(shares[1:])) for name, shares in top1_by_severity(clean, corrupted).items()}
    return rounded(
        {
            "clean": accuracy.top_k(*clean, 1),
            "mean": float(np.mean(list(means.values()))),
            **means,
            "ood": {
                kind: {
                    "images": len(logits),
                    "flagged": ood.flagged(logits, threshold, temperature),
                    "auroc": ood.auroc(test, logits, temperature),
                }
                for kind, logits in ood_logits.items()
            },
        }
    )
