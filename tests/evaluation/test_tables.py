"""The tables behind the figures, and what is said of altered and foreign pictures."""

import numpy as np
import pandas as pd
import pytest

from stages.evaluation import robustness, tables
from stages.evaluation.summary import Answers, summarize

LABELS = np.array([0, 0, 1, 1, 2, 2])


def logits_for(predicted, sure=5.0) -> np.ndarray:
    return (np.eye(3, dtype=np.float32)[np.asarray(predicted)] * sure).astype(np.float32)


@pytest.fixture
def answers() -> Answers:
    return Answers(logits_for([0, 1, 1, 1, 2, 0]), LABELS)


def test_classes_and_superclasses(answers):
    by_class = tables.classes(answers, ["a", "b", "c"], ["x", "y"], [0, 0, 1])
    assert by_class.to_dict("list") == {"class": ["a", "b", "c"], "superclass": ["x", "x", "y"], "top1": [0.5, 1, 0.5]}
    mixed = tables.superclasses(answers, ["x", "y"], [0, 0, 1]).set_index(["actual", "predicted"])
    assert mixed["pictures"].to_dict() == {("x", "x"): 4, ("x", "y"): 0, ("y", "x"): 1, ("y", "y"): 1}
    assert mixed["share"].to_dict() == {("x", "x"): 1, ("x", "y"): 0, ("y", "x"): 0.5, ("y", "y"): 0.5}


def test_models_stand_below_one_another(answers):
    one = tables.reliability(answers, temperature=2.0)
    joined = tables.joined({"first": one, "second": one})
    assert list(joined.columns) == ["model", "calibration", "confidence", "accuracy", "pictures"]
    assert joined["model"].tolist() == ["first"] * len(one) + ["second"] * len(one)
    after = joined[joined["calibration"] == "after"]["confidence"]
    assert after.tolist() == pytest.approx([np.exp(2.5) / (np.exp(2.5) + 2)] * len(after))


def test_top_1_falls_with_severity_and_is_averaged_without_the_clean_pictures(answers):
    worse = {
        "blur": np.stack([logits_for(said) for said in ([0, 0, 1, 1, 2, 0], [0, 1, 1, 0, 0, 0], [2, 2, 2, 0, 0, 0])])
    }
    table = tables.robustness(answers, worse)
    expected = pd.DataFrame({"corruption": "blur", "severity": range(4), "top1": [4 / 6, 5 / 6, 2 / 6, 0]})
    pd.testing.assert_frame_equal(table, expected)
    foreign = {"noise": logits_for([0, 1], sure=0.1), "digits": logits_for([0, 1], sure=9.0)}
    found = robustness.summarize(answers, worse, answers.logits, foreign, threshold=0.5, temperature=1.0)
    assert found["clean"] == pytest.approx(4 / 6, abs=1e-6)
    assert found["blur"] == found["mean"] == pytest.approx(7 / 18, abs=1e-6)
    assert found["foreign"] == {
        "noise": {"pictures": 2, "flagged": 1, "auroc": 1},
        "digits": {"pictures": 2, "flagged": 0, "auroc": 0},
    }


def test_the_summary_fits_on_validation_and_reports_test(honest):
    val, test = Answers(*honest(2_000)), Answers(*honest(2_000, seed=1))
    found = summarize(val, test, [label // 2 for label in range(10)])
    changed = summarize(val, Answers(test.logits * 3, test.labels), [label // 2 for label in range(10)])
    for fitted in ("calibration", "conformal"):
        assert found[fitted] == changed[fitted], "test fits nothing"
    assert found["unfamiliar"]["threshold"] == changed["unfamiliar"]["threshold"]
    shares = found["test"]
    assert 0 <= shares["top1_low"] < shares["top1"] < shares["top1_high"] <= shares["top5"] <= 1
    assert shares["top1"] <= shares["superclass_top1"]
    wrong = 1 - shares["top1"]
    assert shares["superclass_top1"] == pytest.approx(
        shares["top1"] + wrong * shares["superclass_top1_of_wrong"], abs=1e-5
    )
    assert changed["test"]["top1"] == shares["top1"]
    assert shares["coverage_90"] < shares["coverage_95"]
    assert shares["set_size_90"] < shares["set_size_95"]
