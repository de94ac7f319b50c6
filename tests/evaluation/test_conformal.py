"""The promise of conformal sets, by simulation."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import softmax

from stages.evaluation import conformal
from stages.inference.onnx_model import ImageClassifier
from stages.inference.onnx_model import softmax as packaged_softmax


@pytest.mark.parametrize("promised", [0.90, 0.95])
@pytest.mark.parametrize("temperature", [1.0, 0.4], ids=["calibrated", "too sure"])
def test_sets_hold_the_right_class_as_often_as_promised(honest, promised, temperature):
    held = []
    for seed in range(20):
        logits, labels = honest(2_000, classes=20, seed=seed)
        known, new = slice(0, 1_000), slice(1_000, None)
        threshold = conformal.threshold(logits[known], labels[known], promised, temperature)
        members = conformal.sets(logits[new], threshold, temperature)
        held.append(conformal.coverage_and_size(members, labels[new])[0])
    assert np.mean(held) == pytest.approx(promised, abs=0.006)


def test_by_hand():
    logits = np.log([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]]).astype(np.float32)
    assert conformal.scores(logits) == pytest.approx(np.array([[0, 0.5, 0.8], [0.9, 0, 0.6]]))
    labels = np.array([1, 1])
    assert conformal.threshold(logits, labels, 0.5) == pytest.approx(0.5)  # the second of two: ceil(3 / 2)
    assert conformal.sets(logits, 0.55).tolist() == [[True, True, False], [False, True, False]]
    assert conformal.sets(logits, 0.0).tolist() == [[True, False, False], [False, True, False]]
    assert conformal.sets(logits, 1.0).all()
    assert conformal.coverage_and_size(conformal.sets(logits, 0.55), labels) == (1.0, 1.5)
    assert conformal.threshold(logits, labels, 0.95) == 1.0, "of too few images: every class joins"


def test_where_the_sum_of_probabilities_exceeds_one_a_threshold_of_one_still_lets_all_classes_in():
    logits = np.random.default_rng(0).normal(0, 15, (500, 100)).astype(np.float32)
    ordered = -np.sort(-softmax(logits.astype(np.float64), axis=1), axis=1)
    assert (ordered[:, :-1].cumsum(axis=1) > 1).any(), "the case: such sums occur"
    assert conformal.sets(logits, 1.0).all()
    names = {"class_names": list(map(str, range(100))), "superclass_names": ["any"], "superclass_of_class": [0] * 100}
    packaged = ImageClassifier(SimpleNamespace(), names | {"conformal": {"90": 1.0}})
    assert {len(names) for names in packaged.prediction_sets(packaged_softmax(logits))} == {100}
