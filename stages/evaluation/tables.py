"""What the figures show, as tables: one row for each point."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from stages.evaluation import accuracy, calibration, errors
from stages.evaluation import robustness as robustness_measures
from stages.evaluation.summary import Answers


def joined(of_model: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One table of all models, their names in front: `dvc plots` draws it without naming each."""
    return pd.concat(of_model, names=["model"]).reset_index("model")


def classes(
    test: Answers, class_names: Sequence[str], superclass_names: Sequence[str], superclass_of_class: Sequence[int]
) -> pd.DataFrame:
    """class, superclass, top1 (share): a row for each class."""
    superclasses = [superclass_names[index] for index in superclass_of_class]
    return pd.DataFrame({"class": class_names, "superclass": superclasses, "top1": accuracy.class_top1(*test)})


def superclasses(test: Answers, superclass_names: Sequence[str], superclass_of_class: Sequence[int]) -> pd.DataFrame:
    """actual, predicted, pictures, share (of those of the actual superclass): a row for every two superclasses."""
    counts = errors.superclass_confusion(test.logits.argmax(axis=1), test.labels, superclass_of_class)
    table = pd.DataFrame(counts, columns=list(superclass_names)).assign(actual=list(superclass_names))
    table = table.melt("actual", var_name="predicted", value_name="pictures")
    table["share"] = table["pictures"] / table.groupby("actual")["pictures"].transform("sum")
    return table


def reliability(test: Answers, temperature: float) -> pd.DataFrame:
    """calibration (before, after), confidence, accuracy (shares), pictures: a row for each bin."""
    parts = []
    for state, degree in (("before", 1.0), ("after", temperature)):
        bins = calibration.reliability(*test, degree)
        columns = {"confidence": bins.confidence, "accuracy": bins.accuracy, "pictures": bins.count}
        parts.append(pd.DataFrame({"calibration": state, **columns}))
    return pd.concat(parts)


def robustness(clean: Answers, corrupted: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """corruption, severity (0: clean), top1 (share); arguments: see metrics.robustness.altered."""
    found = robustness_measures.altered(clean, corrupted)
    rows = [(corruption, level, share) for corruption, shares in found.items() for level, share in enumerate(shares)]
    return pd.DataFrame(rows, columns=["corruption", "severity", "top1"])
