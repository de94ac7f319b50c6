"""Which model to ship: values, then the sentence they make."""

import pytest

from stages.report import render
from stages.report.candidate import by_validation
from stages.report.recommendation import recommend

from .conftest import DATASET, candidate, compared


def test_the_best_on_validation_is_shipped_the_first_of_equals_and_only_clear_savings_count():
    best = candidate("z", val=0.8, test=0.6, latency=20, size=40_000_000, seconds=1200)
    small = candidate("a", val=0.8, test=0.7, latency=10, size=10_000_000, seconds=1100)
    slow = candidate("slow", val=0.5, latency=40, size=40_000_000, seconds=1200)
    found = recommend(by_validation([slow, best, small]), compared(best, small, slow)["pairs"])
    assert (found.best.name, list(found.leads)) == ("z", ["a", "slow"])
    assert found.savings == {"a": {"speed": 2.0, "size": 4.0}}
    lead = found.leads["a"]
    assert (lead["difference"], lead["is_significant"]) == (pytest.approx(-0.1), True)
    assert lead["low"] < lead["difference"] < lead["high"] < 0
    assert found.leads["slow"]["difference"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("tests", "latency", "expected"),
    [
        ([0.5], 10, "chosen for its 90.0% on 5,000 validation images."),
        (
            [0.5, 0.3, 0.4],
            5,
            "On the same test images it is 20.0 points ahead of m1 (17.6 to 22.5) and 10.0 points ahead of m2 (8.2 to "
            "11.9). Cheaper: m1 is 2.0 times as fast on one image; m2 is 2.0 times as fast on one image.",
        ),
        (
            [0.5, 0.502, 0.6],
            10,
            "it is not significantly different from m1 (p = 0.5) and 10.0 points behind m2 (8.2 to 11.9). No other "
            "model is clearly faster, smaller or quicker to train.",
        ),
    ],
    ids=["alone", "ahead", "tie and behind"],
)
def test_the_sentences_follow_from_the_values(tests, latency, expected):
    others = [candidate(f"m{i}", 0.5 - i / 10, top1, latency=latency) for i, top1 in enumerate(tests[1:], start=1)]
    candidates = [candidate("best", val=0.9, test=tests[0]), *others]
    text = render.recommendation(candidates, compared(*candidates), DATASET)
    assert text.startswith(
        "**Ship best**: 50.0% top-1 accuracy on 10,000 test images (95 % interval 49.0% to 51.0%), 10.0 ms per image, "
        "10.0 minutes of training; "
    )
    assert text.endswith(expected)
    assert "\n" not in text
