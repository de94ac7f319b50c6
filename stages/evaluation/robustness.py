"""What becomes of a model's answers when pictures get worse, or show something else."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from stages.evaluation import accuracy, ood
from stages.evaluation.summary import Answers, rounded


def altered(clean: Answers, corrupted: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """Top-1 under each corruption: of the clean pictures, then of each severity.

    clean: answers to the n pictures as they are; corrupted: by corruption, logits (severities, n, C).
    """
    before = accuracy.top_k(*clean, 1)
    return {
        name: [before, *(accuracy.top_k(logits, clean.labels, 1) for logits in of_severities)]
        for name, of_severities in corrupted.items()
    }


def summarize(
    clean: Answers,
    corrupted: Mapping[str, np.ndarray],
    test: np.ndarray,
    foreign: Mapping[str, np.ndarray],
    threshold: float,
    temperature: float,
) -> dict[str, Any]:
    """What reports/robustness.json says of a model; numbers rounded to 6 decimals.

    clean, corrupted: see `altered`. test: logits (N, C) of all test pictures; foreign: by kind, logits (n, C).
    threshold, temperature: fitted on validation; see metrics.unfamiliar.
    """
    top1 = altered(clean, corrupted)
    means = {name: float(np.mean(of_severities[1:])) for name, of_severities in top1.items()}
    return rounded(
        {
            "clean": accuracy.top_k(*clean, 1),
            "mean": float(np.mean(list(means.values()))),
            **means,
            "foreign": {
                kind: {
                    "pictures": len(logits),
                    "flagged": ood.flagged(logits, threshold, temperature),
                    "auroc": ood.auroc(test, logits, temperature),
                }
                for kind, logits in foreign.items()
            },
        }
    )
