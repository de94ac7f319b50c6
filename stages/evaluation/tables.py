"""What the charts show, as tables: one row for each point."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from stages.evaluation import accuracy, calibration, confusion
from stages.evaluation.robustness import top1_by_severity
from stages.evaluation.summary import Predictions


def joined(by_model: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One table of all models, `model` its first column."""
    return pd.concat(by_model, names=["model"]).reset_index("model").reset_index(drop=True)


def classes(
    test: Predictions, class_names: Sequence[str], superclass_names: Sequence[str], superclass_of_class: Sequence[int]
) -> pd.DataFrame:
    """class, superclass, top1 (share): a row for each class."""
    superclasses = [superclass_names[index] for index in superclass_of_class]
    return pd.DataFrame({"class": class_names, "superclass": superclasses, "top1": accuracy.class_top1(*test)})


def superclasses(
    test: Predictions, superclass_names: Sequence[str], superclass_of_class: Sequence[int]
) -> pd.DataFrame:
    """actual, predicted, images, share (of the images of the actual superclass): a row for every two superclasses."""
    counts = confusion.superclass_confusion(test.logits.argmax(axis=1), test.labels, superclass_of_class)
    table = pd.DataFrame(counts, columns=list(superclass_names)).assign(actual=list(superclass_names))
    table = table.melt("actual", var_name="predicted", value_name="images")
    table["share"] = table["images"] / table.groupby("actual")["images"].transform("sum")
    return table


def reliability(test: Predictions, temperature: float) -> pd.DataFrame:
    """calibration (before, after), confidence, accuracy (shares), images: a row for each bin."""
    states = {"before": 1.0, "after": temperature}
    bins = {state: calibration.reliability(*test, scale) for state, scale in states.items()}
    return pd.concat(bins, names=["calibration"]).reset_index("calibration")


def robustness(clean: Predictions, corrupted: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """corruption, severity (0: clean), top1 (share); arguments: see robustness.top1_by_severity."""
    shares = pd.DataFrame(top1_by_severity(clean, corrupted)).rename_axis("severity").reset_index()
    return shares.melt("severity", var_name="corruption", value_name="top1")[["corruption", "severity", "top1"]]
