"""Top-1 on corrupted images."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from stages.evaluation import accuracy
from stages.evaluation.ood import ByKind
from stages.evaluation.summary import Predictions, rounded


class Shifted(NamedTuple):
    """What a model predicts for images unlike those it was trained on.

    clean: for the n test images that were corrupted, before. corrupted: by corruption, logits (severities, n, C) for
    the same images. ood: for val and test, by kind of out-of-distribution images, logits (N, C).
    """

    clean: Predictions
    corrupted: Mapping[str, np.ndarray]
    ood: Mapping[str, ByKind]


def top1_by_severity(shifted: Shifted) -> pd.DataFrame:
    """corruption, severity (0: clean), top1 (share): a row for each severity of each corruption."""
    clean, labels = accuracy.top_k(*shifted.clean, 1), shifted.clean.labels
    rows = [
        (name, severity, accuracy.top_k(logits[severity - 1], labels, 1) if severity else clean)
        for name, logits in shifted.corrupted.items()
        for severity in range(len(logits) + 1)
    ]
    return pd.DataFrame(rows, columns=["corruption", "severity", "top1"])


def summarize(shifted: Shifted) -> dict[str, Any]:
    """What reports/robustness.json says of a model; numbers rounded to 6 decimals."""
    table = top1_by_severity(shifted)
    means = table[table["severity"] > 0].groupby("corruption", sort=False)["top1"].mean().to_dict()
    return rounded({"clean": accuracy.top_k(*shifted.clean, 1), "mean": float(np.mean(list(means.values()))), **means})
