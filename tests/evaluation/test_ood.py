"""Out-of-distribution images by a score, which is chosen on other images than it is reported on."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from stages.evaluation import ood
from stages.inference.onnx_model import ood_scores

SCALES = {"blends": 0.4, "jigsaw": 0.3, "noise": 0.1}  # of OOD logits: the smaller, the less sure


def of_kinds(honest, seed: int, **scales: float) -> dict[str, np.ndarray]:
    return {kind: honest(500, seed=seed + place)[0] * scale for place, (kind, scale) in enumerate(scales.items())}


def summarized(honest, choosing=SCALES, reported=SCALES):
    splits = *honest(4_000), honest(2_000, seed=1)[0]
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
    labels = np.zeros(len(inside), int)
    kinds = {"blends": outside, "noise": outside}
    chosen = ood.summarize(inside, labels, inside, kinds, kinds, 1.0)["chosen"]
    assert chosen["probability"]["near"] > 0.99
    assert chosen["logit"]["far"] == pytest.approx(0.5, abs=0.05)
    # As sure as the others by their differences, but lower: only logits tell.
    kinds = dict.fromkeys(kinds, inside - 5)
    found = ood.summarize(inside, labels, inside, kinds, kinds, 1.0)
    assert found["chosen"]["logit"]["near"] > 0.99
    assert found["chosen"]["probability"]["near"] < 0.9


def test_the_relative_mahalanobis_score_by_its_definition_and_the_mean_of_each_class(honest):
    logits, labels = honest(4_000, classes=5)
    known = ood.reference(logits, labels)
    centre, means = known["centre"].astype(float), known["centre"] + known["means"].astype(float)
    rows, _ = ood._halves(4_000)
    np.testing.assert_allclose(means, [logits[rows][labels[rows] == c].mean(0) for c in range(5)], atol=1e-5)
    new = honest(50, classes=5, seed=1)[0].astype(float) + 3

    def distance(point, inverse):
        return np.einsum("ni,ij,nj->n", new - point, inverse.astype(float), new - point)

    expected = distance(centre, known["overall"]) - np.min([distance(m, known["within"]) for m in means], axis=0)
    np.testing.assert_allclose(ood_scores(new, known)["mahalanobis"], expected, rtol=1e-5, atol=1e-4)
    covariance = np.cov(logits[rows].T)
    np.testing.assert_allclose(known["overall"], np.linalg.inv(covariance), atol=0.02)


def test_a_reference_of_few_images_is_finite():
    logits, labels = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32), np.arange(8) % 2
    known = ood.reference(logits, labels)
    assert np.isfinite(ood_scores(logits, known)["mahalanobis"]).all()
    constant = np.ones((4, 5), np.float32)
    assert np.isfinite(ood_scores(logits, ood.reference(constant, labels[:4]))["mahalanobis"]).all()


@pytest.mark.parametrize(("kind", "distance"), [("noise", "far"), ("blends", "near")])
def test_where_near_or_far_images_are_not_told_there_is_no_flag_and_a_reason(honest, kind, distance):
    scales = {"blends": 0.3, "noise": 0.3} | {kind: 1.2}
    found = summarized(honest, choosing=scales)
    assert found["threshold"] is found["flagged_test"] is found["by_kind"]["noise"]["flagged"] is None
    assert f" on {distance} images" in found["reason"]
    assert found["by_kind"]["noise"]["auroc"] > 0.6, "reported all the same"


def test_a_score_whose_threshold_catches_hardly_any_image_gives_no_flag():
    # The OOD images lie between the lower and the upper half of the others: AUROC is fair, below the threshold is none.
    rng = np.random.default_rng(0)
    highest = np.concatenate([rng.uniform(0.5, 1, 1_000), rng.uniform(9, 10, 9_000)])
    inside = np.stack([highest, np.zeros(10_000)], axis=1)
    outside = np.stack([rng.uniform(4, 5, 500), np.zeros(500)], axis=1)
    kinds = {"blends": outside, "noise": outside}
    found = ood.summarize(inside, np.zeros(10_000, int), inside, kinds, kinds, 1.0)
    assert found["chosen"][found["score"]]["near"] > 0.85
    assert found["threshold"] is None
    assert found["reason"] == "only 0% of near images flagged, only 0% of far images flagged"


def test_auroc_equals_scikit_learns_and_is_a_half_for_the_same_scores():
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(1, 1, 300).round(1), rng.normal(0, 1, 200).round(1)  # with ties
    expected = roc_auc_score(np.repeat([1, 0], [300, 200]), np.concatenate([inside, outside]))
    assert ood.auroc(inside, outside)[0] == pytest.approx(expected)
    assert ood.auroc(inside, inside)[0] == pytest.approx(0.5)


@pytest.mark.parametrize("shift", [0.3, 2.5])
def test_the_interval_of_auroc_covers_the_truth_as_often_as_promised(shift):
    rng, truth = np.random.default_rng(0), float(norm.cdf(shift / np.sqrt(2)))
    intervals = [ood.auroc(rng.normal(shift, 1, 300), rng.normal(0, 1, 100))[1:] for _ in range(1_000)]
    assert 0.92 < np.mean([low <= truth <= high for low, high in intervals]) < 0.975


def test_perfect_separation_of_few_images_is_not_certain():
    found, low, high = ood.auroc(np.arange(10, 30), np.arange(5))
    assert (found, high) == (1, 1)
    assert low == pytest.approx(5 / (5 + norm.ppf(0.975) ** 2)), "that of 5 of 5"
