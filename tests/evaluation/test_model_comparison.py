"""Confused classes, confident mistakes, and what several models have in common."""

import numpy as np
import pytest

from stages.evaluation import confusion
from stages.evaluation.model_comparison import compare

from .conftest import LABELS, logits_for


def metrics(temperature: float = 1.0, val_top1: float = 0.5):
    return {"calibration": {"temperature": temperature}, "val": {"top1": val_top1}}


def test_pairs_of_classes_count_in_both_directions_most_frequent_first():
    predicted = np.array([1, 1, 0, 1, 1, 2])
    assert confusion.confused_pairs(predicted, LABELS, 3, count=5) == [
        {"first": 0, "second": 1, "first_as_second": 2, "second_as_first": 1},
        {"first": 1, "second": 2, "first_as_second": 0, "second_as_first": 1},
    ]
    assert len(confusion.confused_pairs(predicted, LABELS, 3, count=1)) == 1


def test_mistakes_come_in_the_order_of_their_calibrated_probability():
    logits = np.array([[3, 0, 0], [0, 9, 0], [5, 0, 0], [0, 5, 0], [9, 0, 0], [0, 0, 1]], np.float32)
    found = confusion.confident_mistakes(logits, LABELS, temperature=2.0, count=2)
    assert [(mistake["row"], mistake["label"], mistake["predicted"]) for mistake in found] == [(1, 0, 1), (4, 2, 0)]
    assert found[0]["probability"] == pytest.approx(np.exp(4.5) / (np.exp(4.5) + 2), abs=1e-6)


def test_agreement_ensemble_and_common_mistakes_of_two_models():
    models = {
        "a": logits_for([0, 0, 0, 0, 2, 2], sure=2.0),
        "b": logits_for([0, 1, 0, 1, 0, 2], sure=8.0),
    }
    found = compare(models, LABELS, {"a": metrics(val_top1=0.4), "b": metrics(val_top1=0.5)})
    assert found["missed_by_all"]["images"] == 1
    assert [suspect["row"] for suspect in found["missed_by_all"]["suspects"]] == [2]
    assert found["missed_by_all"]["suspects"][0]["probability"] == pytest.approx(
        np.exp(2) / (np.exp(2) + 2), abs=1e-5
    ), "that of the model which is less sure"
    assert found["agreement"] == [{"first": "a", "second": "b", "share": 0.5}]
    # Where they differ the surer one, b, decides.
    assert found["ensemble"]["top1"] == 0.5
    assert found["ensemble"]["gain"] == 0
    assert found["ensemble"]["one_is_right"] == pytest.approx(5 / 6, abs=1e-6)
    assert found["ensemble"]["best_single"] == "b", "by validation, though a is better on test"
    # Unless calibration says that it is surer than it should be.
    calibrated = {"a": metrics(0.2, val_top1=0.5), "b": metrics(20.0)}
    ensemble = compare(models, LABELS, calibrated)["ensemble"]
    assert (ensemble["best_single"], ensemble["top1"], ensemble["gain"]) == ("a", pytest.approx(4 / 6, abs=1e-6), 0)


def test_one_model_is_enough():
    found = compare({"only": logits_for(LABELS)}, LABELS, {"only": metrics()})
    assert found["pairs"] == found["agreement"] == []
    assert found["ranking"] == [{"rank": 1, "model": "only"}]
    assert found["missed_by_all"] == {"images": 0, "share": 0, "same_class": 0, "suspects": []}
    assert (found["ensemble"]["top1"], found["ensemble"]["gain"], found["ensemble"]["p_value"]) == (1, 0, 1)
    assert found["models"]["only"] == {"confused_pairs": [], "mistakes": []}


def test_where_all_are_wrong_with_the_same_class_every_label_is_a_suspect():
    wrong = logits_for((LABELS + 1) % 3)
    found = compare({"a": wrong, "b": wrong}, LABELS, {"a": metrics(), "b": metrics(2.0)})
    assert found["missed_by_all"] | {"suspects": None} == {"images": 6, "share": 1, "same_class": 6, "suspects": None}
    assert sorted(suspect["row"] for suspect in found["missed_by_all"]["suspects"]) == list(range(6))
    assert found["ranking"] == [{"rank": 1, "model": "a"}, {"rank": 1, "model": "b"}]
    assert (found["ensemble"]["one_is_right"], found["agreement"][0]["share"]) == (0, 1)


def test_pairs_and_ranking_are_of_the_means_over_seeds():
    models = {"a": logits_for([0, 0, 1, 1, 2, 0]), "b": logits_for([0, 0, 1, 1, 0, 0])}  # 5 and 4 of 6
    seeds = {
        "a": np.array([[1, 1, 1, 1, 1, 0], [1, 0, 0, 0, 0, 0]], bool),
        "b": np.array([[1, 1, 1, 1, 0, 0]] * 2, bool),
    }
    found = compare(models, LABELS, dict.fromkeys(models, metrics()), seeds)
    [pair] = found["pairs"]
    assert (pair["first"], pair["difference"]) == ("b", pytest.approx(8 / 12 - 6 / 12, abs=1e-6))
    assert [row["model"] for row in found["ranking"]] == ["b", "a"]
    assert found["agreement"] == [{"first": "a", "second": "b", "share": pytest.approx(5 / 6, abs=1e-6)}]
