"""Intervals and tests, by simulation and by published examples."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from stages.evaluation import significance


def right_predictions(share: float, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(count) < share


def correlated(seed: int, count: int, noise: float, **limits: float) -> dict[str, np.ndarray]:
    """Which images several models classify correctly: the same image is hard for all of them."""
    rng = np.random.default_rng(seed)
    hard = rng.random(count)
    return {name: hard + rng.normal(0, noise, count) < limit for name, limit in limits.items()}


@pytest.mark.parametrize("share", [0.4, 0.8])
def test_the_interval_covers_the_truth_as_often_as_promised(share):
    covered = []
    for seed in range(2_000):
        low, high = significance.bootstrap_interval(right_predictions(share, 500, seed), seed)
        covered.append(low <= share <= high)
    assert 0.93 < np.mean(covered) < 0.97


def test_the_interval_of_a_difference_covers_the_truth_as_often_as_promised():
    truth, _ = quad(lambda hard: norm.cdf((0.62 - hard) / 0.2) - norm.cdf((0.58 - hard) / 0.2), 0, 1)
    covered = []
    for seed in range(1_000):
        (pair,) = significance.compare_pairs(correlated(seed, 800, 0.2, better=0.62, worse=0.58), seed)
        sign = 1 if pair.first == "better" else -1
        low, high = sorted((sign * pair.low, sign * pair.high))
        covered.append(low <= truth <= high)
    assert 0.93 < np.mean(covered) < 0.97


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
    assert (same.p_value, same.low, same.high, same.is_significant) == (1, 0, 0, False)
    assert significance.ranks(models, pairs) == [(1, "one"), (1, "same"), (3, "third")]


def test_the_family_wise_error_rate_is_at_most_five_per_cent():
    families = [significance.compare_pairs(correlated(seed, 1_000, 0.3, a=0.6, b=0.6, c=0.6)) for seed in range(400)]
    significant = np.mean([any(pair.is_significant for pair in pairs) for pairs in families])
    assert significant < 0.06, "5 % for all three pairs together: that is what Holm's correction is for"


def test_a_pair_is_the_same_comparison_from_either_side():
    (pair,) = significance.compare_pairs({"worse": np.arange(100) < 60, "better": np.arange(100) < 75})
    seen = pair.seen_from("worse")
    assert pair.seen_from("better") == pair
    assert (seen.first, seen.first_only, seen.second_only) == ("worse", 0, 15)
    assert (seen.difference, seen.low, seen.high) == (-0.15, -pair.high, -pair.low)
    assert seen.seen_from("better") == pair
