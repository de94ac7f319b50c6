"""All measures of one model, from its stored logits."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stages.evaluation import accuracy, calibration, conformal, ood, significance

COVERAGES = (0.90, 0.95)


class Predictions(NamedTuple):
    """Logits (N, C) float32 for labelled images, and their labels (N,) int64."""

    logits: np.ndarray
    labels: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Which images are classified correctly: (N,) bool."""
        return self.logits.argmax(axis=1) == self.labels


def summarize(
    val: Predictions, test: Predictions, superclass_of_class: Sequence[int], ood_logits: Mapping[str, ood.ByKind]
) -> dict[str, Any]:
    """What reports/metrics/<model>.json says; numbers rounded to 6 decimals.

    ood_logits: for val and test, logits (N, C) by kind of out-of-distribution images. Temperature and thresholds are
    fitted on val, so val's calibrated figures are in-sample; test's are not.
    """
    temperature = calibration.fit_temperature(*val)
    thresholds = {str(round(100 * share)): conformal.threshold(*val, share, temperature) for share in COVERAGES}
    others = superclass_of_class, temperature, thresholds
    differs = significance.difference_interval(val.right, test.right)
    summary = {
        "val": measures(val, *others),
        "test": measures(test, *others),
        "val_minus_test": dict(zip(("difference", "low", "high"), differs, strict=True)),
        "calibration": {"temperature": temperature},
        "conformal": {name: {"threshold": value} for name, value in thresholds.items()},
        "ood": ood.summarize(*val, test.logits, ood_logits["val"], ood_logits["test"], temperature),
    }
    return rounded(summary)


def measures(
    predictions: Predictions, superclass_of_class: Sequence[int], temperature: float, thresholds: Mapping[str, float]
) -> dict[str, float]:
    """The measures on one split; `..._calibrated`: of probabilities at this temperature."""
    logits, labels = predictions
    found = {
        **top1_with_interval(predictions.right),
        "top5": accuracy.top_k(logits, labels, 5),
        "superclass_top1": accuracy.superclass_top1(logits, labels, superclass_of_class),
        "superclass_top1_on_errors": accuracy.superclass_top1_on_errors(logits, labels, superclass_of_class),
        "macro_f1": accuracy.macro_f1(logits, labels),
    }
    for suffix, scale in (("", 1.0), ("_calibrated", temperature)):
        found["nll" + suffix] = calibration.negative_log_likelihood(logits, labels, scale)
        found["ece" + suffix] = calibration.expected_calibration_error(logits, labels, scale)
        found["ece_width" + suffix] = calibration.expected_calibration_error(logits, labels, scale, "width")
        found["brier" + suffix] = calibration.brier_score(logits, labels, scale)
    for name, threshold in thresholds.items():
        members = conformal.sets(logits, threshold, temperature)
        found[f"coverage_{name}"], found[f"set_size_{name}"] = conformal.coverage_and_size(members, labels)
    return found


def top1_with_interval(right: np.ndarray) -> dict[str, float]:
    """top1, and top1_low to top1_high, its 95 % interval; right: (N,) bool."""
    low, high = significance.share_interval(right)
    return {"top1": float(right.mean()), "top1_low": low, "top1_high": high}


def rounded(content: Any) -> Any:
    """The same with all numbers rounded to 6 decimals."""
    if isinstance(content, dict):
        return {key: rounded(value) for key, value in content.items()}
    if isinstance(content, list):
        return [rounded(value) for value in content]
    return round(content, 6) if isinstance(content, float) else content
