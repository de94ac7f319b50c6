"""Which model adapts faster: crossings by hand, and the rule of the verdict."""

import math

import pandas as pd
import pytest

from stages.report import adaptation

CHANCE = 0.01


def learning(**by_model):
    """Courses of points 100 images apart, one for each seed: by model the seconds between points, and their top-1."""
    rows = [
        (model, seed, 100 * place, pace * place, top1)
        for model, (pace, seeds) in by_model.items()
        for seed, course in enumerate(seeds)
        for place, top1 in enumerate(course, start=1)
    ]
    return pd.DataFrame(rows, columns=["model", "seed", "images", "seconds", "val_top1"])


def course(*top1, pace=10.0):
    return adaptation.courses(learning(a=(pace, [top1])), "a", CHANCE)[0]


@pytest.mark.parametrize(
    ("level", "seconds"), [(0.01, 0.0), (0.11, 5.0), (0.21, 10.0), (0.3, 20.0), (0.4, 30.0), (0.41, math.inf)]
)
def test_a_level_is_crossed_between_two_points_for_the_first_time(level, seconds):
    found = course(0.21, 0.3, 0.4, 0.2)
    assert adaptation.crossing(found, level, "seconds") == pytest.approx(seconds)
    assert adaptation.crossing(found, level, "images") == pytest.approx(10 * seconds)


def test_the_slower_starter_overtakes_where_it_stays_ahead():
    fast, slow = course(0.4, 0.5, 0.5, 0.5), course(0.2, 0.4, 0.6, 0.8)
    at, top1 = adaptation.overtaking(slow, fast, "images")
    assert (at, top1) == (pytest.approx(250), pytest.approx(0.5))
    assert adaptation.overtaking(fast, slow, "images") is None
    at_half_the_pace, _ = adaptation.overtaking(course(0.2, 0.4, 0.6, 0.8, pace=20), fast, "seconds")
    assert at_half_the_pace == pytest.approx(50), "what has ended keeps its last top-1"


def compared(cnn, vit, pace=10.0):
    return adaptation.compare(learning(cnn=(pace, cnn), vit=(10.0, vit)), "cnn", "vit", CHANCE)


SLOW, FAST = [0.1, 0.2, 0.3, 0.4], [0.3, 0.5, 0.6, 0.7]


@pytest.mark.parametrize(
    ("cnn", "vit", "pace", "verdict"),
    [
        ([FAST], [SLOW], 10, "Holds"),
        ([SLOW], [FAST], 10, "Does not hold"),
        ([FAST], [SLOW], 40, "Mixed"),  # first in images, not in time
        ([[0.3, 0.31, 0.32, 0.33]], [[0.05, 0.2, 0.4, 0.6]], 10, "Mixed"),  # starts faster, is overtaken
        ([FAST, SLOW], [SLOW, FAST], 10, "Not decided"),
        ([FAST, FAST], [SLOW, SLOW], 10, "Holds"),
        ([FAST, SLOW], [[0.05, 0.06, 0.07, 0.08]] * 2, 10, "Mixed"),  # one seed of the first never gets to 50 %
    ],
)
def test_the_verdict_follows_from_who_is_first_at_every_level_with_every_seed(cnn, vit, pace, verdict):
    assert compared(cnn, vit, pace)["verdict"] == verdict


def test_the_levels_are_those_that_a_model_reaches_and_one_of_the_lower_final():
    found = compared([FAST, FAST], [SLOW, SLOW])
    assert [round(level["level"], 3) for level in found["levels"]] == [0.1, 0.25, 0.36, 0.5]
    assert found["levels"][3]["seconds"] == {"first": "cnn", "each": {"cnn": [20.0, 20.0], "vit": [None, None]}}
    assert found["levels"][1]["images"]["each"]["vit"] == pytest.approx([250.0, 250.0])
    assert found["seeds"] == {"cnn": [0, 1], "vit": [0, 1]}
    assert found["overtaking"] == {"seconds": None, "images": None}
    overtaken = compared([[0.3, 0.31, 0.32, 0.33]], [[0.05, 0.2, 0.4, 0.6]])["overtaking"]["images"]
    assert (overtaken["by"], overtaken["of"]) == ("vit", "cnn")
    assert 200 < overtaken["at"][0] < 300
    assert compared([FAST], []) is None
