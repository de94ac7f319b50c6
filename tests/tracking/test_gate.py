import numpy as np
import pytest
from scipy.stats import binomtest

from stages.tracking.gate import Candidate, Gate, PairedComparison, hashes, ranking

# Of 1,000 images the candidate alone is right on 30, the champion alone on 20, both on 600.
CANDIDATE = np.repeat([True, False, True, False], [30, 20, 600, 350])
CHAMPION = np.repeat([False, True, True, False], [30, 20, 600, 350])


def test_the_best_on_val_comes_first_and_of_equals_the_first_named() -> None:
    order = ranking([Candidate("a", 0.5), Candidate("b", 0.64), Candidate("c", 0.5)])
    assert [candidate.model for candidate in order] == ["b", "a", "c"]


def test_a_comparison_counts_where_the_two_differ() -> None:
    result = PairedComparison.of(CANDIDATE, CHAMPION)
    assert (result.images, result.candidate_right, result.champion_right) == (1000, 630, 620)
    assert (result.candidate_only, result.champion_only) == (30, 20)
    assert result.difference == pytest.approx(0.01)
    assert result.low < 0.01 < result.high
    assert result.p_value == pytest.approx(binomtest(30, 50).pvalue)
    back = PairedComparison.of(CHAMPION, CANDIDATE)
    assert (back.candidate_only, back.champion_only, back.difference) == (20, 30, -result.difference)
    assert (back.low, back.high) == (-result.high, -result.low)


def test_a_comparison_tells_its_numbers() -> None:
    text = str(PairedComparison.of(CANDIDATE, CHAMPION))
    assert text.startswith("63.00% against 62.00% on the same 1,000 validation images, a difference of +1.00 points (")
    assert text.endswith("McNemar's exact p = 0.2")


@pytest.mark.parametrize(
    ("rule", "alpha", "better_passes", "equal_passes", "worse_passes"),
    [
        ("always", 0.05, True, True, True),
        ("better", 0.05, True, False, False),
        ("significant", 0.05, False, False, False),
        ("significant", 0.5, True, False, False),
    ],
)
def test_each_rule_asks_for_what_it_says(rule, alpha, better_passes, equal_passes, worse_passes) -> None:
    gate = Gate(rule, alpha)
    assert gate.passes(PairedComparison.of(CANDIDATE, CHAMPION)) is better_passes
    assert gate.passes(PairedComparison.of(CHAMPION, CHAMPION)) is equal_passes
    assert gate.passes(PairedComparison.of(CHAMPION, CANDIDATE)) is worse_passes


def test_images_are_known_again_by_their_hashes() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 2, 2, 3), dtype=np.uint8)
    changed = images.copy()
    changed[2, 0, 0, 0] ^= 1
    assert hashes(images).dtype == np.uint64
    assert (hashes(images) == hashes(changed)).tolist() == [True, True, False, True]
