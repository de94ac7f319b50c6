import numpy as np
import pytest
from scipy.stats import binomtest

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
