"""Out-of-distribution images by a score of the logits, which is chosen on other images than it is reported on."""

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as torchmetrics
from scipy.stats import norm

from stages.evaluation import ood

SCALES = {"blends": 0.4, "jigsaw": 0.3, "noise": 0.1}  # of OOD logits: the smaller, the less sure


def of_kinds(honest, seed: int, **scales: float) -> dict[str, np.ndarray]:
    return {kind: honest(500, seed=seed + place)[0] * scale for place, (kind, scale) in enumerate(scales.items())}


def summarized(honest, choosing=SCALES, reported=SCALES):
    splits = honest(2_000)[0], honest(2_000, seed=1)[0]
    return ood.summarize(*splits, of_kinds(honest, 2, **choosing), of_kinds(honest, 5, **reported), 1.0)


def test_the_threshold_flags_five_per_cent_of_in_distribution_images_and_more_of_others(honest):
    found = summarized(honest)
    assert found["reason"] is None
    assert found["flagged_test"] == pytest.approx(0.05, abs=0.025)
    assert found["by_kind"]["noise"]["flagged"] > found["by_kind"]["blends"]["flagged"] > 0.1
    assert [own["distance"] for own in found["by_kind"].values()] == ["near", "near", "far"]


def test_score_and_flag_are_chosen_on_the_images_for_choosing_alone(honest):
    found, others = summarized(honest), summarized(honest, reported=dict.fromkeys(SCALES, 3.0))
    for key in ("score", "chosen", "threshold", "reason", "flagged_test"):
        assert found[key] == others[key]
    assert others["by_kind"]["noise"]["auroc"] < 0.3 < found["by_kind"]["noise"]["auroc"]
    best = max(sum(means.values()) for means in found["chosen"].values())
    assert sum(found["chosen"][found["score"]].values()) == best


def test_the_score_that_does_best_is_chosen():
    # OOD logits as high as the others, but two of them alike: only the probabilities tell.
    rng = np.random.default_rng(0)
    inside, outside = (np.concatenate([10 + rng.normal(size=(500, 1)), np.zeros((500, 2))], axis=1) for _ in range(2))
    outside[:, 1] = outside[:, 0] - 0.1
    kinds = {"blends": outside, "noise": outside}
    assert ood.summarize(inside, inside, kinds, kinds, 1.0)["score"] in ("probability", "entropy")
    # As sure as the others by their differences, but lower: only logits tell.
    kinds = dict.fromkeys(kinds, inside - 5)
    assert ood.summarize(inside, inside, kinds, kinds, 1.0)["score"] in ("logit", "energy")


@pytest.mark.parametrize(("kind", "distance"), [("noise", "far"), ("blends", "near")])
def test_where_near_or_far_images_are_not_told_there_is_no_flag_and_a_reason(honest, kind, distance):
    scales = {"blends": 0.3, "noise": 0.3} | {kind: 1.2}
    found = summarized(honest, choosing=scales)
    assert found["threshold"] is found["flagged_test"] is found["by_kind"]["noise"]["flagged"] is None
    assert found["reason"].endswith(f"on {distance} images is below 0.6")
    assert found["by_kind"]["noise"]["auroc"] > 0.6, "reported all the same"


def test_auroc_equals_torchmetrics_and_its_interval_covers_the_truth(honest):
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(1, 1, 300).round(1), rng.normal(0, 1, 200).round(1)  # with ties
    truth = torch.from_numpy(np.repeat([1, 0], [300, 200]))
    expected = torchmetrics.binary_auroc(torch.from_numpy(np.concatenate([inside, outside])).sigmoid(), truth)
    assert ood.auroc(inside, outside)[0] == pytest.approx(float(expected), abs=1e-6)
    assert ood.auroc(inside, inside)[0] == pytest.approx(0.5)


@pytest.mark.parametrize("shift", [0.3, 2.5])
def test_the_interval_of_auroc_covers_the_truth_as_often_as_promised(shift):
    rng, truth = np.random.default_rng(0), float(norm.cdf(shift / np.sqrt(2)))
    intervals = [ood.auroc(rng.normal(shift, 1, 300), rng.normal(0, 1, 100))[1:] for _ in range(1_000)]
    assert 0.93 < np.mean([low <= truth <= high for low, high in intervals]) < 0.975


def test_perfect_separation_of_few_images_is_not_certain():
    found, low, high = ood.auroc(np.arange(10, 30), np.arange(5))
    assert (found, high) == (1, 1)
    assert low == pytest.approx(5 / (5 + norm.ppf(0.975) ** 2)), "that of 5 of 5"
