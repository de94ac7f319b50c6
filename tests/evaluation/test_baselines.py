"""Trivial classifiers: right where they can be, and at chance where they cannot."""

import numpy as np

from stages.evaluation import baselines


def tinted(count: int, seed: int, size: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images, red, green or blue; two in four are red."""
    rng, labels = np.random.default_rng(seed), np.array([0, 1, 2, 0] * (count // 4))
    tints = 128 + 60 * np.eye(3)[labels][:, None, None]
    return np.clip(tints + rng.normal(0, 60, (count, size, size, 3)), 0, 255).astype(np.uint8), labels


def test_the_most_frequent_training_class_is_right_where_it_occurs():
    splits = {"test": (np.zeros((4, 2, 2, 3), np.uint8), np.array([2, 1, 2, 0]))}
    found = baselines.majority(np.array([0, 2, 2, 1]), splits)
    assert found["test"].tolist() == [True, False, True, False]


def test_a_linear_model_tells_colours_and_nothing_of_noise():
    train, test = tinted(400, seed=0), tinted(200, seed=1)
    shuffled = test[0], np.random.default_rng(2).permutation(test[1])
    found = baselines.linear(train, {"test": test, "shuffled": shuffled})
    assert found["test"].mean() > 0.95
    assert 0.25 < found["shuffled"].mean() < 0.5
    again = baselines.linear(train, {"test": test})
    assert (again["test"] == found["test"]).all()
