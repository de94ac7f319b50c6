"""Stage `evaluate`: the measures of one model on validation and test, from its stored logits."""

import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np

from stages.common import paths
from stages.common.errors import one_line_errors
from stages.common.files import write_json
from stages.data.dataset import Prepared
from stages.evaluation import accuracy, predictions
from stages.evaluation.summary import Predictions, rounded, summarize, top1_with_interval
from stages.models import params


def main() -> None:
    name, _ = params.read_for_model(__doc__)
    prepared = Prepared.open(paths.PREPARED)
    val, test = (predictions.of_split(name, prepared, split) for split in ("val", "test"))
    shifted = predictions.under_shift(name, prepared, test)
    metrics = summarize(val, test, prepared.superclass_of_class, shifted.ood)
    trained = {split: predictions.by_seed(name, prepared, split) for split in ("val", "test")}
    metrics["seeds"] = rounded(over_seeds(trained, predictions.chosen_seed(name)))
    metrics["test_without_near_duplicates"] = rounded(
        of_images(test, ~predictions.with_near_duplicate("test", prepared))
    )
    for split in ("val", "test"):
        top1, low, high, top5 = (metrics[split][key] for key in ("top1", "top1_low", "top1_high", "top5"))
        print(f"{name}: {split} top-1 {top1:.2%} ({low:.2%} to {high:.2%}), top-5 {top5:.2%}")
    write_json(paths.METRICS / f"{name}.json", metrics)


def of_images(found: Predictions, chosen: np.ndarray) -> dict[str, Any] | None:
    """Top-1 and its interval on the `chosen` images, (N,) bool; None where there are none."""
    if not chosen.any():
        return None
    right = found.right[chosen]
    return {**top1_with_interval(right), "images": len(right)}


def over_seeds(trained: Mapping[str, Mapping[int, Predictions]], chosen: int) -> dict[str, Any]:
    """Top-1 of each seed, by split, with mean and standard deviation (None of a single one)."""
    summary: dict[str, Any] = {"chosen": chosen}
    for split, by_seed in trained.items():
        top1 = {str(seed): accuracy.top_k(own.logits, own.labels, 1) for seed, own in by_seed.items()}
        shares = list(top1.values())
        spread = statistics.stdev(shares) if len(shares) > 1 else None
        summary[split] = {"top1": top1, "mean": statistics.fmean(shares), "std": spread}
    return summary


if __name__ == "__main__":
    with one_line_errors("evaluate"):
        main()
