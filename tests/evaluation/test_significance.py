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


@pytest.mark.parametrize("share", [0.4, 0.8, 0.98])
def test_the_interval_covers_the_truth_as_often_as_promised(share):
    covered = []
    for seed in range(2_000):
        low, high = significance.share_interval(right_predictions(share, 500, seed))
        covered.append(low <= share <= high)
    assert 0.93 < np.mean(covered) < 0.97


def test_the_interval_of_few_images_all_right_by_hand():
    z = norm.ppf(0.975)
    assert significance.share_interval(np.ones(20, bool)) == pytest.approx((20 / (20 + z**2), 1))
    low, high = significance.share_interval(np.zeros(20, bool))
    assert (low, high) == pytest.approx((0, z**2 / (20 + z**2)))


def test_the_difference_of_two_samples_by_newcombes_published_example():
    # Newcombe (1998), table II: 56 of 70 less 48 of 80, method 10.
    found = significance.difference_interval(np.arange(70) < 56, np.arange(80) < 48)
    assert found == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


@pytest.mark.parametrize("share", [0.7, 0.97])
def test_the_interval_of_a_difference_of_two_samples_covers_none_as_often_as_promised(share):
    pairs = [(right_predictions(share, 400, 2 * i), right_predictions(share, 600, 2 * i + 1)) for i in range(2_000)]
    covered = [low <= 0 <= high for _, low, high in (significance.difference_interval(*pair) for pair in pairs)]
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


@pytest.mark.parametrize("spread", [0, 0.03, 0.1], ids=["like seeds", "as usual", "seeds that vary"])
@pytest.mark.parametrize("seeds", [(3, 3), (5, 3)])
def test_over_seeds_the_interval_covers_the_truth_and_equal_models_differ_as_rarely_as_promised(seeds, spread):
    rng, count, noise, covered, rejected = np.random.default_rng(0), 1_000, 0.5, [], []
    for gap in (0.0, 0.2):
        total = np.sqrt(1 + noise**2 + spread**2)
        truth = norm.cdf((0.8 + gap) / total) - norm.cdf(0.8 / total)
        for _ in range(600):
            hard, right = rng.normal(size=count), {}
            for name, number, shift in zip(("first", "second"), seeds, (gap, 0), strict=True):
                own = np.sqrt(0.8) * hard + np.sqrt(0.2) * rng.normal(size=count)
                of_seed = rng.normal(0, spread, (number, 1)) + rng.normal(0, noise, (number, count))
                right[name] = own + of_seed + 0.8 + shift > 0
            [pair] = significance.compare_pairs(right)
            seen = pair.seen_from("first")
            covered.append(seen.low <= truth <= seen.high)
            if not gap:
                rejected.append(pair.p_value < 0.05)
    # The variance between seeds is estimated as no less than 0: a little too wide an interval where there is none.
    assert 0.93 < np.mean(covered) < (0.97 if spread else 0.98)
    assert 0.015 < np.mean(rejected) < 0.07


def test_seeds_that_differ_widen_the_interval_of_the_same_mean():
    same = np.array([np.arange(200) < 150] * 2)
    vary = np.array([np.arange(200) < 130, np.arange(200) < 170])
    other = np.random.default_rng(0).random((2, 200)) < 0.5
    narrow, wide = (significance.compare_pairs({"a": own, "b": other})[0] for own in (same, vary))
    assert narrow.difference == pytest.approx(wide.difference)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    assert wide.p_value > narrow.p_value
    assert (narrow.first_only, wide.first_only) == (round(150 - other[:, :150].mean(0).sum()), wide.first_only)


def test_one_seed_as_matrix_is_one_seed_and_seeds_without_difference_have_no_interval():
    rows = {"a": right_predictions(0.7, 500, 0), "b": right_predictions(0.6, 500, 1)}
    assert significance.compare_pairs({name: row[None] for name, row in rows.items()}) == significance.compare_pairs(
        rows
    )
    [same] = significance.compare_pairs({"a": np.array([rows["a"]] * 3), "b": np.array([rows["a"]] * 3)})
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)
