"""Measures of accuracy against scikit-learn's and torchmetrics'."""

import numpy as np
import pytest
import sklearn.metrics
import torch
import torchmetrics.functional.classification as torchmetrics

from stages.evaluation import accuracy

N, C = 400, 12


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, C - 1, N)  # the last class never occurs
    logits = rng.normal(size=(N, C)).astype(np.float32)
    logits[np.arange(N), labels] += 1.0
    return logits, labels


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_equals_scikit_learns(predictions, k):
    logits, labels = predictions
    expected = sklearn.metrics.top_k_accuracy_score(labels, logits, k=k, labels=range(C))
    assert accuracy.top_k(logits, labels, k) == pytest.approx(expected)


@pytest.mark.parametrize(("k", "expected"), [(1, 1 / 3), (2, 1), (5, 1)])
def test_of_equal_logits_the_lower_class_counts_first_and_of_fewer_than_k_all_count(k, expected):
    logits = np.array([[1, 1, 0], [0, 1, 1], [2, 2, 2]], np.float32)
    assert accuracy.top_k(logits, np.array([0, 2, 1]), k) == pytest.approx(expected)


def test_macro_f1_and_top_1_of_each_class_equal_torchmetrics(predictions):
    logits, labels = predictions
    tensors = torch.from_numpy(logits), torch.from_numpy(labels)
    of_class = torchmetrics.multiclass_recall(*tensors, num_classes=C, average="none").numpy()
    found = accuracy.class_top1(logits, labels)
    assert found[: C - 1] == pytest.approx(of_class[: C - 1])
    assert np.isnan(found[C - 1]), "no image, no share"
    f1 = torchmetrics.multiclass_f1_score(*tensors, num_classes=C, average="none").mean()
    assert accuracy.macro_f1(logits, labels) == pytest.approx(float(f1), abs=1e-6)


def test_superclass_top_1_forgives_the_wrong_class_of_the_right_superclass():
    logits = np.eye(4, dtype=np.float32)[[0, 1, 2, 3]]
    labels = np.array([1, 1, 3, 0])  # wrong within the superclass, right, wrong within it, wrong beyond it
    assert accuracy.superclass_top1(logits, labels, [0, 0, 1, 1]) == pytest.approx(3 / 4)
    assert accuracy.superclass_top1_on_errors(logits, labels, [0, 0, 1, 1]) == pytest.approx(2 / 3)
    assert accuracy.superclass_top1_on_errors(logits, np.arange(4), [0, 0, 1, 1]) == 0
