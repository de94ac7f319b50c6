"""What the charts show, as tables: one row for each point."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from stages.data.dataset import Prepared
from stages.evaluation import accuracy, calibration, confusion
from stages.evaluation.summary import Predictions


def joined(by_key: Mapping[Any, pd.DataFrame], key: str = "model") -> pd.DataFrame:
    """One table of all, `key` its first column."""
    return pd.concat(by_key, names=[key]).reset_index(key).reset_index(drop=True)


def classes(test: Predictions, prepared: Prepared) -> pd.DataFrame:
    """class, superclass, top1 (share): a row for each class."""
    superclasses = [prepared.superclass_names[index] for index in prepared.superclass_of_class]
    return pd.DataFrame({"class": prepared.class_names, "superclass": superclasses, "top1": accuracy.class_top1(*test)})


def superclasses(test: Predictions, prepared: Prepared) -> pd.DataFrame:
    """actual, predicted, images, share (of the images of the actual superclass): a row for every two superclasses."""
    predicted, names = test.logits.argmax(axis=1), prepared.superclass_names
    counts = confusion.superclass_confusion(predicted, test.labels, prepared.superclass_of_class)
    table = pd.DataFrame(counts, columns=names).assign(actual=names)
    table = table.melt("actual", var_name="predicted", value_name="images")
    table["share"] = table["images"] / table.groupby("actual")["images"].transform("sum")
    return table


def reliability(test: Predictions, temperature: float) -> pd.DataFrame:
    """calibration (before, after), confidence, accuracy (shares), images: a row for each bin."""
    states = {"before": 1.0, "after": temperature}
    bins = {state: calibration.reliability(*test, scale) for state, scale in states.items()}
    return joined(bins, "calibration")
