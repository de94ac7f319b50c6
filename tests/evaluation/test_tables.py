"""The tables behind the charts, and the measures of robustness and of one model."""

import numpy as np
import pandas as pd
import pytest

from stages.evaluation import robustness, tables
from stages.evaluation.summary import Predictions, summarize

LABELS = np.array([0, 0, 1, 1, 2, 2])


def logits_for(predicted, sure=5.0) -> np.ndarray:
    return (np.eye(3, dtype=np.float32)[np.asarray(predicted)] * sure).astype(np.float32)


@pytest.fixture
def predictions() -> Predictions:
    return Predictions(logits_for([0, 1, 1, 1, 2, 0]), LABELS)


def test_classes_and_superclasses(predictions):
    by_class = tables.classes(predictions, ["a", "b", "c"], ["x", "y"], [0, 0, 1])
    assert by_class.to_dict("list") == {"class": ["a", "b", "c"], "superclass": ["x", "x", "y"], "top1": [0.5, 1, 0.5]}
    mixed = tables.superclasses(predictions, ["x", "y"], [0, 0, 1]).set_index(["actual", "predicted"])
    assert mixed["images"].to_dict() == {("x", "x"): 4, ("x", "y"): 0, ("y", "x"): 1, ("y", "y"): 1}
    assert mixed["share"].to_dict() == {("x", "x"): 1, ("x", "y"): 0, ("y", "x"): 0.5, ("y", "y"): 0.5}


def test_models_are_joined_in_one_table(predictions):
    one = tables.reliability(predictions, temperature=2.0)
    joined = tables.joined({"first": one, "second": one})
    assert list(joined.columns) == ["model", "calibration", "confidence", "accuracy", "images"]
    assert joined["model"].tolist() == ["first"] * len(one) + ["second"] * len(one)
    after = joined[joined["calibration"] == "after"]["confidence"]
    assert after.tolist() == pytest.approx([np.exp(2.5) / (np.exp(2.5) + 2)] * len(after))


def test_top_1_by_severity_and_the_mean_leaves_the_clean_images_out(predictions):
    worse = {
        "blur": np.stack([logits_for(said) for said in ([0, 0, 1, 1, 2, 0], [0, 1, 1, 0, 0, 0], [2, 2, 2, 0, 0, 0])])
    }
    table = tables.robustness(predictions, worse)
    expected = pd.DataFrame({"corruption": "blur", "severity": range(4), "top1": [4 / 6, 5 / 6, 2 / 6, 0]})
    pd.testing.assert_frame_equal(table, expected)
    others = {"noise": logits_for([0, 1], sure=0.1), "digits": logits_for([0, 1], sure=9.0)}
    found = robustness.summarize(predictions, worse, predictions.logits, others, threshold=0.5, temperature=1.0)
    assert found["clean"] == pytest.approx(4 / 6, abs=1e-6)
    assert found["blur"] == found["mean"] == pytest.approx(7 / 18, abs=1e-6)
    assert found["ood"] == {
        "noise": {"images": 2, "flagged": 1, "auroc": 1},
        "digits": {"images": 2, "flagged": 0, "auroc": 0},
    }


def test_the_summary_fits_on_validation_and_reports_test(honest):
    val, test = Predictions(*honest(2_000)), Predictions(*honest(2_000, seed=1))
    found = summarize(val, test, [label // 2 for label in range(10)])
    changed = summarize(val, Predictions(test.logits * 3, test.labels), [label // 2 for label in range(10)])
    for fitted in ("calibration", "conformal"):
        assert found[fitted] == changed[fitted], "test fits nothing"
    assert found["ood"]["threshold"] == changed["ood"]["threshold"]
    shares = found["test"]
    assert 0 <= shares["top1_low"] < shares["top1"] < shares["top1_high"] <= shares["top5"] <= 1
    assert shares["top1"] <= shares["superclass_top1"]
    wrong = 1 - shares["top1"]
    assert shares["superclass_top1"] == pytest.approx(
        shares["top1"] + wrong * shares["superclass_top1_on_errors"], abs=1e-5
    )
    assert changed["test"]["top1"] == shares["top1"]
    assert shares["coverage_90"] < shares["coverage_95"]
    assert shares["set_size_90"] < shares["set_size_95"]
