"""The charts: which values they draw, in which order, and that the same chart gives the same file."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stages.report import charts, galleries

SUMMARY = pd.DataFrame(
    {
        "model": ["vit_transfer", "mine", "slow"],
        "top1": [0.8, 0.5, 0.7],
        "low": [0.79, 0.49, 0.69],
        "high": [0.81, 0.51, 0.71],
        "milliseconds": [3.0, 1.0, 4.0],
        "minutes": [5.0, 2.0, 2.0],
    }
)


def drawn(chart):
    """The rows of every data set of a chart, in one table."""
    return pd.concat([pd.DataFrame(rows) for rows in chart.to_dict()["datasets"].values()])


def sorts(chart, channel):
    return [layer["encoding"][channel].get("sort") for layer in chart.to_dict()["layer"]]


def test_every_model_has_one_colour_and_no_two_the_same():
    several = charts.colours(["vit_scratch", "vit_transfer", "mobilenet_transfer", "one", "two"])
    assert len(set(several.values())) == 5
    assert several["vit_transfer"] == charts.colours(["vit_transfer"])["vit_transfer"]


def test_bars_are_sorted_by_top1():
    others = pd.DataFrame({"name": ["a notebook"], "model": [""], "top1": [0.6], "low": [0.6], "high": [0.6]})
    chart = charts.top1(pd.concat([SUMMARY.assign(name=SUMMARY["model"]), others]))
    assert sorts(chart, "y")[0] == ["vit_transfer", "slow", "a notebook", "mine"]
    assert chart.to_dict()["layer"][0]["encoding"]["x"]["scale"]["domain"][1] == pytest.approx(1.14 * 0.81)


@pytest.mark.parametrize(
    ("cost", "front"), [("milliseconds", ["mine", "vit_transfer"]), ("minutes", ["slow", "vit_transfer"])]
)
def test_the_pareto_front_holds_what_no_model_beats_in_both(cost, front):
    assert charts.pareto_front(SUMMARY, cost)["model"].tolist() == front


def test_learning_curves_smooth_the_batches_and_place_them_between_epochs():
    curves = pd.DataFrame({"model": "a", "epoch": [1, 2], "seconds": [60.0, 120.0], "val_top1": [0.1, 0.2]})
    steps = pd.DataFrame({"model": "a", "step": [1, 2, 3], "seconds": [15, 30, 90], "train_top1": [0.02, 0.04, 0.18]})
    table = drawn(charts.learning_curves(curves, steps, "top1", by="epochs", chance=0.01))
    batches = table[table["step"].notna()]
    assert batches["epochs"].tolist() == [0.25, 0.5, 1.5]
    assert batches["minutes"].tolist() == [0.25, 0.5, 1.5]
    assert batches["train_top1"].tolist() == pytest.approx([0.08] * 3)
    assert table["val_top1"].dropna().tolist() == [0.1, 0.2]
    assert table["chance"].dropna().tolist() == [0.01]
    none = steps.iloc[:0].astype(object)  # as read from a file of no rows
    assert len(charts.learning_curves(curves, none, "top1").to_dict()["layer"]) == 1


def test_robustness_of_no_corruption_is_the_mean_of_all():
    rows = [("a", "blur", 1, 0.2), ("a", "noise", 1, 0.4)]
    table = pd.DataFrame(rows, columns=["model", "corruption", "severity", "top1"])
    assert drawn(charts.robustness(table, None))["top1"].tolist() == pytest.approx([0.3])
    assert drawn(charts.robustness(table, "blur"))["top1"].tolist() == [0.2]


@pytest.mark.parametrize("wrong", [0.25, 0.0], ids=["errors", "all right"])
def test_superclass_confusion_keeps_the_order_and_writes_shares_in_per_cent(wrong):
    rows = [("b", "b", 1 - wrong), ("a", "b", 0.004), ("b", "a", wrong), ("a", "a", 0.996)]
    table = pd.DataFrame(rows, columns=["actual", "predicted", "share"]).assign(model="mine", images=4)
    chart = charts.superclass_confusion(table, "mine", numbers=True)
    assert sorts(chart, "y") == [["b", "a"]] * 3
    text = pd.DataFrame(chart.to_dict()["datasets"][chart.to_dict()["layer"][2]["data"]["name"]])
    assert text["percent"].tolist() == [100 * (1 - wrong), *([100 * wrong] if wrong else []), 100]
    assert text["dark"].sum() == (wrong > 0)
    assert len(charts.superclass_confusion(table, "mine").to_dict()["layer"]) == 2


def test_the_hardest_class_comes_first():
    top1 = pd.DataFrame({"class": ["easy", "hard", "mid"], "a": [0.9, 0.1, 0.5], "b": [0.8, 0.3, 0.6]})
    chart = charts.class_accuracy(top1.melt("class", var_name="model", value_name="top1")).to_dict()
    orders = [panel["layer"][0]["encoding"]["y"]["sort"] for panel in chart["hconcat"]]
    assert orders == [["hard", "mid"], ["easy"]]


def test_confused_pairs_tell_both_directions():
    table = pd.DataFrame({"model": "a", "pair": ["x / y"], "first_as_second": [14], "second_as_first": [22]})
    [row] = drawn(charts.confused_pairs(table)).to_dict("records")
    assert (row["total"], row["label"]) == (36, "14 + 22")


def test_the_same_chart_gives_the_same_file_with_its_title(tmp_path):
    panels = [charts.accuracy_against_cost(SUMMARY, cost) for cost in ("milliseconds", "minutes")]
    for name in ("a", "b"):
        charts.save(charts.panels(panels, columns=2, width=200, height=150), tmp_path / name, "A title", "A subtitle")
    charts.save(panels[0], tmp_path / "single")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    two, one = (np.asarray(Image.open(tmp_path / name)) for name in ("a", "single"))
    assert two.shape[1] > 800  # two panels of 200 points, at two pixels a point
    assert (two[0] == 255).all()
    assert (one < 128).any()


def test_galleries_show_the_images_with_their_classes():
    images = np.broadcast_to((np.arange(60) // 5)[:, None, None, None] * 20, (60, 8, 8, 3)).astype(np.uint8)
    names = [f"class_{label}" for label in range(12)]
    about = SimpleNamespace(class_names=names, superclass_names=["x", "y"], superclass_of_class=[0, 1] * 6)
    sheet = galleries.contact_sheet(images, np.arange(60) // 5, about)
    shown = [axis for axis in sheet.axes if axis.images]
    assert [axis.get_title() for axis in shown] == [f"class {label}" for label in [*range(0, 12, 2), *range(1, 12, 2)]]
    for axis in shown:
        pixels = axis.images[0].get_array()
        assert pixels.shape == (8, 16, 3)
        assert (pixels == 20 * int(axis.get_title().split()[1])).all()

    found = [{"row": 5, "label": 1, "predicted": 2, "probability": 0.987}]
    for figure in (galleries.mistakes(images, {"mine": found}, names), galleries.suspects(images, found, names)):
        axis = figure.axes[0]
        assert (axis.get_title(), axis.get_xlabel()) == ("class 2\n99%", "labelled\nclass 1")
        assert (axis.images[0].get_array() == images[5]).all()
        assert not figure.axes[1].images
    assert not any(axis.images for axis in galleries.suspects(images, [], names).axes)
