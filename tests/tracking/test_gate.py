import numpy as np
import pytest
from scipy.stats import binom, binomtest

from stages.tracking.gate import Gate, PairedComparison

# Of 1,000 images the candidate alone is right on 30, the champion alone on 20, both on 600.
CANDIDATE = np.repeat([True, False, True, False], [30, 20, 600, 350])
CHAMPION = np.repeat([False, True, True, False], [30, 20, 600, 350])


def test_a_comparison_is_of_the_images_where_the_two_differ():
    result = PairedComparison.of(CANDIDATE, CHAMPION)
    assert (result.images, result.candidate, result.champion) == (1000, 0.63, 0.62)
    assert result.difference == pytest.approx(0.01)
    assert result.low < 0.01 < result.high
    assert result.p_value == pytest.approx(binomtest(30, 50).pvalue)
    back = PairedComparison.of(CHAMPION, CANDIDATE)
    assert (back.difference, back.low, back.high) == (-result.difference, -result.high, -result.low)


RUNS = 20_000  # registrations that are simulated


def simulated(rng, images, candidates, gain):
    """(RUNS, candidates, 2): on how many images only the candidate is right, and only the champion.

    The champion has 80 % top-1; a candidate differs from it on 12 % of all images, and is truly `gain` better.
    """
    right = rng.binomial(images, 0.8, (RUNS, 1))
    won = rng.binomial(images - right, (0.12 + gain) / 2 / 0.2, (RUNS, candidates))
    return np.stack([won, rng.binomial(right, (0.12 - gain) / 2 / 0.8, (RUNS, candidates))], axis=-1)


def promoted(rule, images, found):
    """(...), bool: which of the simulated comparisons (..., 2) pass the gate."""
    pairs, of_pair = np.unique(found.reshape(-1, 2), axis=0, return_inverse=True)
    p_values = np.minimum(1, 2 * binom.cdf(pairs.min(axis=1), pairs.sum(axis=1), 0.5))
    passes = [
        Gate(rule).passes(PairedComparison(images, 0.8 + (won - lost) / images, 0.8, 0, 0, p_value))
        for (won, lost), p_value in zip(pairs, p_values, strict=True)
    ]
    return np.array(passes)[of_pair].reshape(found.shape[:-1])


def best(found, by):
    """(RUNS, 2): of each run the candidate with the largest lead over the champion in `by`."""
    return found[np.arange(RUNS), (by[..., 0] - by[..., 1]).argmax(axis=1)]


@pytest.mark.parametrize(
    ("images", "rule", "rate", "same_images", "ten_tries", "two_points_better"),
    [
        (2500, "significant", 0.003, 0.009, 0.03, 0.81),  # these and the next stand in params.yaml
        (2500, "better", 0.23, 0.50, 0.83, 1.0),
        (5000, "significant", 0.0014, 0.004, 0.012, 0.98),
        (5000, "better", 0.15, 0.36, 0.69, 1.0),
    ],
)
def test_how_often_a_candidate_half_a_point_worse_is_promoted(
    images, rule, rate, same_images, ten_tries, two_points_better
):
    rng = np.random.default_rng(0)
    val, gate = (simulated(rng, images, 3, -0.005) for _ in range(2))
    tolerance = {"significant": 0.0015, "better": 0.012}[rule]
    assert promoted(rule, images, best(gate, by=val)).mean() == pytest.approx(rate, abs=tolerance)
    # Where one set of images both chooses the best of three and compares it, as before there was gate:
    assert promoted(rule, images, best(gate, by=gate)).mean() == pytest.approx(same_images, abs=1.5 * tolerance)
    # Who tries again and again on the same gate images gets in sooner or later.
    tries = promoted(rule, images, simulated(rng, images, 10, -0.005)).any(axis=1)
    assert tries.mean() == pytest.approx(ten_tries, abs=3 * tolerance)
    better = promoted(rule, images, simulated(rng, images, 1, 0.02))
    assert better.mean() == pytest.approx(two_points_better, abs=0.01)
    won, lost = gate[0, 0]
    only_candidate = np.repeat([True, False, False], [won, lost, images - won - lost])
    only_champion = np.repeat([False, True, False], [won, lost, images - won - lost])
    compared = PairedComparison.of(only_candidate, only_champion)
    assert Gate(rule).passes(compared) == promoted(rule, images, gate[:1, 0])[0], "McNemar's test as above"


@pytest.mark.parametrize(
    ("rule", "alpha", "better_passes", "equal_passes", "worse_passes"),
    [
        ("always", 0.05, True, True, True),
        ("better", 0.05, True, False, False),
        ("significant", 0.05, False, False, False),
        ("significant", 0.5, True, False, False),
    ],
)
def test_each_rule_asks_for_what_it_says(rule, alpha, better_passes, equal_passes, worse_passes):
    gate = Gate(rule, alpha)
    assert gate.passes(PairedComparison.of(CANDIDATE, CHAMPION)) is better_passes
    assert gate.passes(PairedComparison.of(CHAMPION, CHAMPION)) is equal_passes
    assert gate.passes(PairedComparison.of(CHAMPION, CANDIDATE)) is worse_passes
