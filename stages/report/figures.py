"""What reports/plots holds: which charts and galleries, of which tables."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from stages.common import paths
from stages.common.files import read_json
from stages.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from stages.data.dataset import Prepared
from stages.report import charts, galleries

EXAMPLE = 3  # the test image that shows the corruptions: any would do
TITLES = {
    "top1": "Top-1 accuracy with 95 % intervals",
    "learning_curves": "Learning curves: validation (dots), training batches (lines)",
    "adaptation": "Top-1 on validation within the training, a line for each seed",
    "equal_minutes": "Top-1 on validation for the same minutes of training",
    "pareto": "Accuracy against cost, with 95 % intervals",
    "reliability": "Reliability",
    "robustness": "Top-1 accuracy on corrupted images",
    "confused_pairs": "Most confused pairs of classes",
    "class_accuracy": "Top-1 accuracy of every class",
}
CONFUSION = "{}: images of each superclass (rows) by predicted superclass, in per cent"


def write(
    folder: Path, prepared: Prepared, tables: Mapping[str, pd.DataFrame], comparison: Mapping[str, Any]
) -> list[str]:
    """Write every figure into `folder`; returns their names, without the ending.

    tables: those of reports/tables, by name, and equal_minutes, the study. comparison: as in comparison.json.
    """
    images, _ = prepared.split("test")
    names, by_model, counts = prepared.class_names, comparison["models"], prepared.description["counts"]
    on_test, on_validation = (
        f"{counts[split]:,} {noun} images of {prepared.source}"
        for split, noun in (("test", "test"), ("val", "validation"))
    )
    shown = {
        "contact_sheet": galleries.contact_sheet(*prepared.split("train"), prepared),
        "corruptions": galleries.corruptions(_corrupted(images[[EXAMPLE]])),
        "mistakes": galleries.mistakes(images, {model: own["mistakes"] for model, own in by_model.items()}, names),
        "suspects": galleries.suspects(images, comparison["missed_by_all"]["suspects"], names),
    }
    tables = {name: _readable(table) for name, table in tables.items()}
    drawn = _charts(tables, by_model, names, prepared.source) | _courses(tables, 1 / len(names))
    titles = TITLES | {f"superclass_confusion_{model}": CONFUSION.format(model) for model in by_model}
    corrupted = f"{comparison['corrupted_images']:,} test images of {prepared.source}"
    subtitles = {"learning_curves": on_validation, "robustness": corrupted, "adaptation": "", "equal_minutes": ""}
    for name, figure in shown.items():
        galleries.save(figure, folder / f"{name}.png")
    for name, chart in drawn.items():
        charts.save(chart, folder / f"{name}.png", titles[name], subtitles.get(name, on_test))
    return [*shown, *drawn]


def _charts(
    tables: Mapping[str, pd.DataFrame], by_model: Mapping[str, Any], class_names: Sequence[str], source: str
) -> dict[str, charts.Chart]:
    summary, corrupted = tables["summary"], tables["robustness"]
    training, chance = (tables["curves"], tables["steps"]), 1 / len(class_names)
    bars = summary.assign(name=summary["model"])[["name", "model", "top1", "low", "high"]]
    notebooks = read_json(paths.NOTEBOOKS, f"`git checkout {paths.NOTEBOOKS}` restores it")
    if source == notebooks["data"]:
        others = [(f"notebook: {name}", "", top1, top1, top1) for name, top1 in notebooks["top1"].items()]
        bars = pd.concat([bars, pd.DataFrame(others, columns=bars.columns)])
    pairs = [
        (model, f"{class_names[p['first']]} / {class_names[p['second']]}", p["first_as_second"], p["second_as_first"])
        for model, own in by_model.items()
        for p in own["confused_pairs"]
    ]
    confused = pd.DataFrame(pairs, columns=["model", "pair", "first_as_second", "second_as_first"])
    two = partial(charts.panels, columns=2, width=330, height=300)
    four = partial(charts.panels, columns=4, width=170, height=130)
    states = [(state, charts.reliability(tables["reliability"], state)) for state in ("before", "after")]
    confusion = partial(charts.superclass_confusion, tables["superclasses"], numbers=True)
    cell = {"width": alt.Step(30), "height": alt.Step(26)}
    return {
        "top1": charts.top1(bars),
        "learning_curves": two([charts.learning_curves(*training, "top1", by, chance) for by in ("epochs", "minutes")]),
        "pareto": two([charts.accuracy_against_cost(summary, cost) for cost in ("milliseconds", "minutes")]),
        "reliability": two([chart.properties(title=f"{state} calibration") for state, chart in states]),
        "robustness": four(
            [charts.robustness(corrupted, name).properties(title=name) for name in corrupted["corruption"].unique()]
        ),
        "confused_pairs": charts.confused_pairs(_readable(confused)),
        "class_accuracy": charts.class_accuracy(tables["classes"]),
        **{f"superclass_confusion_{model}": confusion(model=model).properties(**cell) for model in by_model},
    }


def _courses(tables: Mapping[str, pd.DataFrame], chance: float) -> dict[str, charts.Chart]:
    """Of what there are tables with rows."""
    drawn: dict[str, charts.Chart] = {}
    if len(learning := tables["learning"]):
        learning = learning.assign(minutes=learning["seconds"] / 60)
        axes = (("minutes", charts.COSTS["minutes"]), ("images", "training images seen"))
        by_axis = [charts.top1_on_validation(learning, *axis, chance) for axis in axes]
        drawn["adaptation"] = charts.panels(by_axis, columns=2, width=330, height=300)
    if len(study := tables["equal_minutes"]):
        chart = charts.top1_on_validation(study, "minutes", charts.COSTS["minutes"])
        drawn["equal_minutes"] = chart.properties(width=480, height=280)
    return drawn


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """Names as people read them: spaces in place of underscores; models keep theirs."""
    text = table.select_dtypes(exclude="number").columns.difference(["model"])
    return table.assign(**{column: table[column].str.replace("_", " ") for column in text})


def _corrupted(example: np.ndarray) -> dict[str, np.ndarray]:
    """An image (1, H, W, 3), then itself at each severity, by corruption."""
    return {
        name: np.concatenate([example, *(corrupt(example, name, severity, 0) for severity in SEVERITIES)])
        for name in CORRUPTIONS
    }
