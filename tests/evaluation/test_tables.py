"""The tables behind the charts, and the measures of robustness and of one model."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from stages.evaluation import robustness, tables
from stages.evaluation.summary import Predictions, summarize

from .conftest import LABELS, logits_for

PREDICTIONS = Predictions(logits_for([0, 1, 1, 1, 2, 0]), LABELS)


def test_classes_and_superclasses():
    names = {"class_names": ["a", "b", "c"], "superclass_names": ["x", "y"], "superclass_of_class": [0, 0, 1]}
    by_class = tables.classes(PREDICTIONS, SimpleNamespace(**names))
    assert by_class.to_dict("list") == {"class": ["a", "b", "c"], "superclass": ["x", "x", "y"], "top1": [0.5, 1, 0.5]}
    mixed = tables.superclasses(PREDICTIONS, SimpleNamespace(**names)).set_index(["actual", "predicted"])
    assert mixed["images"].to_dict() == {("x", "x"): 4, ("x", "y"): 0, ("y", "x"): 1, ("y", "y"): 1}
    assert mixed["share"].to_dict() == {("x", "x"): 1, ("x", "y"): 0, ("y", "x"): 0.5, ("y", "y"): 0.5}


def test_models_are_joined_in_one_table():
    one = tables.reliability(PREDICTIONS, temperature=2.0)
    joined = tables.joined({"first": one, "second": one})
    assert list(joined.columns) == ["model", "calibration", "confidence", "accuracy", "images"]
    assert joined["model"].tolist() == ["first"] * len(one) + ["second"] * len(one)
    after = joined[joined["calibration"] == "after"]["confidence"]
    assert after.tolist() == pytest.approx([np.exp(2.5) / (np.exp(2.5) + 2)] * len(after))


def test_top_1_by_severity_and_the_mean_leaves_the_clean_images_out():
    blur = np.stack([logits_for(said) for said in ([0, 0, 1, 1, 2, 0], [0, 1, 1, 0, 0, 0], [2, 2, 2, 0, 0, 0])])
    shifted = robustness.Shifted(PREDICTIONS, {"blur": blur}, {})
    expected = pd.DataFrame({"corruption": "blur", "severity": range(4), "top1": [4 / 6, 5 / 6, 2 / 6, 0]})
    pd.testing.assert_frame_equal(robustness.top1_by_severity(shifted), expected)
    assert robustness.summarize(shifted) == {
        "clean": pytest.approx(4 / 6, abs=1e-6),
        "mean": pytest.approx(7 / 18, abs=1e-6),
        "blur": pytest.approx(7 / 18, abs=1e-6),
    }


def test_the_summary_fits_on_validation_and_reports_test(honest):
    val, test = Predictions(*honest(2_000)), Predictions(*honest(2_000, seed=1))
    superclass_of_class = [label // 2 for label in range(10)]
    kinds = {"blends": val.logits * 0.4, "noise": val.logits * 0.1}
    others = superclass_of_class, {"val": kinds, "test": kinds}
    found = summarize(val, test, *others)
    changed = summarize(val, Predictions(test.logits * 3, test.labels), *others)
    for fitted in ("calibration", "conformal"):
        assert found[fitted] == changed[fitted], "test fits nothing"
    assert found["ood"]["threshold"] == changed["ood"]["threshold"]
    shares = found["test"]
    assert 0 <= shares["top1_low"] < shares["top1"] < shares["top1_high"] <= shares["top5"] <= 1
    right_superclass = shares["top1"] + (1 - shares["top1"]) * shares["superclass_top1_on_errors"]
    assert shares["top1"] <= shares["superclass_top1"] == pytest.approx(right_superclass, abs=1e-5)
    assert changed["test"]["top1"] == shares["top1"]
    assert shares["coverage_90"] < shares["coverage_95"]
    assert shares["set_size_90"] < shares["set_size_95"]
    gap = found["val_minus_test"]
    assert gap["difference"] == pytest.approx(found["val"]["top1"] - found["test"]["top1"], abs=2e-6)
    assert gap["low"] < 0 < gap["high"], "of the same distribution"
    assert {"ece_width", "ece_width_calibrated"} <= shares.keys()
