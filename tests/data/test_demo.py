"""The demo's drawings: no split knows more of the training images than a fresh draw does."""

import numpy as np
import pytest

from stages.data.sources import demo
from stages.data.split import split
from stages.evaluation import baselines
from stages.evaluation.significance import difference_interval


@pytest.fixture(scope="module")
def right():
    """By split which images a linear model gets right; `fresh`: of another seed of the generator, `known`: of train."""
    parts = split(demo.generate(70, 20, seed=0), 0.4, 0.5, seed=0, limit=None).parts
    parts |= {"fresh": demo.generate(1, 40, seed=1).test, "known": parts["train"]}
    splits = {name: (part.images(), part.labels()) for name, part in parts.items()}
    return baselines.linear(splits.pop("train"), splits)


@pytest.mark.parametrize("name", ["val", "gate", "test"])
def test_a_fresh_draw_scores_as_the_held_out_images_do(right, name):
    _, low, high = difference_interval(right[name], right["fresh"])
    assert low < 0 < high


def test_images_that_were_trained_on_would_not(right):
    _, low, _ = difference_interval(right["known"], right["fresh"])
    assert low > 0.1


def test_train_and_test_share_no_image_and_other_seeds_draw_others():
    one, other = demo.generate(3, 3, seed=0), demo.generate(3, 3, seed=1)
    images = [image.tobytes() for records in (*one[:2], *other[:2]) for image in records.pixels]
    assert len(set(images)) == len(images) == 1_200
    assert all(np.array_equal(*pair) for pair in zip(one.test, demo.generate(3, 3, seed=0).test, strict=True))
