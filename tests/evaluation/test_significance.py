"""Intervals and tests, by simulation and by published examples."""

import numpy as np
import pytest

from stages.evaluation import significance


def right_predictions(share: float, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(count) < share


@pytest.mark.parametrize("share", [0.4, 0.8])
def test_the_interval_covers_the_truth_as_often_as_promised(share):
    covered = []
    for seed in range(2_000):
        low, high = significance.bootstrap_interval(right_predictions(share, 500, seed), seed)
        covered.append(low <= share <= high)
    assert 0.93 < np.mean(covered) < 0.97


def test_the_interval_of_a_difference_covers_the_truth_as_often_as_promised():
    covered = []
    for seed in range(1_000):
        rng = np.random.default_rng(seed)
        hard = rng.random(800)  # the same image is hard for both: the models are correlated
        first, second = hard + rng.normal(0, 0.2, 800) < 0.62, hard + rng.normal(0, 0.2, 800) < 0.58
        (pair,) = significance.compare_pairs({"first": first, "second": second}, seed)
        sign = 1 if pair.first == "first" else -1
        low, high = sorted((sign * pair.low, sign * pair.high))
        covered.append(low <= TRUTH <= high)
    assert 0.93 < np.mean(covered) < 0.97


def _truth() -> float:
    rng = np.random.default_rng(10_000)
    hard = rng.random(4_000_000)
    return float(
        (hard + rng.normal(0, 0.2, len(hard)) < 0.62).mean() - (hard + rng.normal(0, 0.2, len(hard)) < 0.58).mean()
    )


TRUTH = _truth()


def test_mcnemars_p_value_is_the_binomial_one_by_hand():
    first = np.array([True] * 9 + [False] + [True] * 90)
    second = np.array([False] * 9 + [True] + [True] * 90)
    (pair,) = significance.compare_pairs({"first": first, "second": second})
    assert (pair.first_only, pair.second_only) == (9, 1)
    assert pair.p_value == pytest.approx(2 * (1 + 10) / 2**10)
    assert pair.difference == pytest.approx(0.08)


def test_holm_by_a_published_example():
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert significance.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert significance.holm([0.9, 0.8]) == [1.0, 1.0]


def test_identical_models_do_not_differ_and_share_a_rank():
    right = right_predictions(0.7, 10_000, seed=0)
    models = {"one": right, "same": right.copy(), "third": right_predictions(0.4, 10_000, seed=1)}
    pairs = significance.compare_pairs(models)
    same = next(pair for pair in pairs if {pair.first, pair.second} == {"one", "same"})
    assert same.p_value == 1
    assert not same.is_significant
    assert same.low == same.high == 0
    assert significance.ranks(models, pairs) == [(1, "one"), (1, "same"), (3, "third")]


@pytest.mark.parametrize("seed", range(5))
def test_three_points_on_ten_thousand_images_are_significant(seed):
    rng = np.random.default_rng(seed)
    hard = rng.random(10_000)
    models = {
        name: hard + rng.normal(0, 0.3, len(hard)) < limit for name, limit in (("worse", 0.685), ("better", 0.725))
    }
    (pair,) = significance.compare_pairs(models)
    assert 0.02 < pair.difference < 0.045
    assert pair.first == "better"
    assert pair.is_significant
    assert 0 < pair.low < pair.difference < pair.high


def test_the_family_wise_error_rate_is_at_most_five_per_cent():
    significant = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        hard = rng.random(1_000)
        models = {str(index): hard + rng.normal(0, 0.3, 1_000) < 0.6 for index in range(3)}
        significant += any(pair.is_significant for pair in significance.compare_pairs(models))
    assert significant / 400 < 0.06, "5 % for all three pairs together: that is what Holm's correction is for"
