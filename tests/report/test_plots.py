"""The figures: what they show, and that the same input gives the same bytes."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from stages.report.plots import style
from stages.report.plots.calibration import reliability
from stages.report.plots.confusion import class_accuracy, confused_pairs, superclass_confusion
from stages.report.plots.contact_sheet import contact_sheet
from stages.report.plots.gallery import mistakes, suspects
from stages.report.plots.learning_curves import learning_curves
from stages.report.plots.pareto import accuracy_against_cost, pareto_front
from stages.report.plots.robustness import corruption_examples, robustness
from stages.report.plots.top1 import top1

MODELS = ("vit_scratch", "vit_transfer", "mobilenet_transfer")

mpl.use("Agg")


@pytest.fixture
def histories():
    return {
        "vit_scratch": pd.DataFrame({"epoch": [1, 2], "seconds": [60.0, 120.0], "val_top1": [0.1, 0.2]}),
        "another": pd.DataFrame({"epoch": [1], "seconds": [90.0], "val_top1": [0.5]}),
    }


@pytest.fixture
def steps():
    none = pd.DataFrame({"seconds": [], "train_top1": []}, dtype=object)  # as they are read from a file of no rows
    some = pd.DataFrame({"seconds": [15.0, 30.0, 90.0], "train_top1": [0.02, 0.04, 0.18]})
    return {"vit_scratch": some, "another": none}


def texts(figure):
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_text()]


def test_learning_curves_show_validation_and_what_was_learnt_between(histories, steps):
    figure = learning_curves(histories, steps, num_classes=100)
    by_epoch, by_time = figure.axes
    curves = {line.get_label(): line for line in by_epoch.lines if not line.get_label().startswith("_")}
    assert curves["vit_scratch"].get_xydata().tolist() == [[1, 0.1], [2, 0.2]]
    assert curves["another"].get_xydata().tolist() == [[1, 0.5]]
    assert by_time.lines[1].get_xdata().tolist() == [1, 2]
    batches = by_epoch.lines[0]
    assert batches.get_xdata().tolist() == [0.25, 0.5, 1.5]  # by the times of the epochs
    assert by_time.lines[0].get_xdata().tolist() == [0.25, 0.5, 1.5]
    assert batches.get_ydata() == pytest.approx([0.08, 0.08, 0.08])  # smoothed
    assert {"epochs", "minutes of training", "top-1", "chance"} <= set(texts(figure))


def test_top1_is_sorted_and_names_every_value():
    models = {"vit_scratch": (0.3, 0.29, 0.31), "vit_transfer": (0.8, 0.79, 0.82)}
    figure = top1(models, {"notebook": 0.4}, title="Top-1")
    [axis] = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["vit_scratch", "notebook", "vit_transfer"]
    assert [bar.get_width() for bar in axis.patches] == [0.3, 0.4, 0.8]
    assert {"30.0%", "40.0%", "80.0%"} <= set(texts(figure))
    assert axis.patches[1].get_facecolor() == mpl.colors.to_rgba(style.GREY)
    whiskers = [container[2][0].get_segments()[0][:, 0].tolist() for container in axis.containers[1:]]
    assert whiskers == [pytest.approx([0.29, 0.31]), pytest.approx([0.79, 0.82])]


def test_the_front_holds_what_nothing_beats_in_both():
    assert pareto_front([(3, 0.5), (1, 0.2), (2, 0.5), (4, 0.9), (5, 0.8)]) == [1, 2, 3]
    assert pareto_front([(1, 0.5), (1, 0.6)]) == [1]


@pytest.fixture
def drawn():
    """Every other figure, of made-up numbers, with the longest names that CIFAR-100 has."""
    rng = np.random.default_rng(0)
    superclasses = ["large_man-made_outdoor_things", "non-insect_invertebrates", *(f"group_{i}" for i in range(18))]
    classes = ["aquarium_fish", "lawn_mower", "sweet_pepper", *(f"class_number_{index}" for index in range(97))]
    shares = {model: rng.random(100) for model in MODELS}
    steps = pd.DataFrame(
        [(c, s, 0.8 / (s + 1)) for c in ("noise", "blur", "pixelation", "occlusion", "rotation") for s in range(4)],
        columns=["corruption", "severity", "top1"],
    )
    bins = pd.DataFrame(
        [(state, x, x**2) for state in ("before", "after") for x in (0.2, 0.5, 0.9)],
        columns=["calibration", "confidence", "accuracy"],
    )
    images = rng.integers(0, 256, (20, 32, 32, 3), np.uint8)
    wrong = [{"row": row, "label": 0, "predicted": 2, "probability": 0.987} for row in range(8)]
    pairs = [{"first": 0, "second": 1, "first_as_second": 20 - i, "second_as_first": 9} for i in range(10)]
    points = {
        model: {"top1": top, "top1_low": top - 0.01, "top1_high": top + 0.01, "latency": cost, "minutes": 10 / cost}
        for model, top, cost in zip(MODELS, (0.37, 0.8, 0.73), (2.5, 8.0, 13.0), strict=True)
    }
    yield {
        "pareto": accuracy_against_cost(points, {"latency": "milliseconds", "minutes": "minutes"}),
        "superclass_confusion": superclass_confusion(rng.integers(0, 30, (20, 20)), superclasses, title="vit_scratch"),
        "confused_pairs": confused_pairs(dict.fromkeys(MODELS, pairs), classes, 100),
        "class_accuracy": class_accuracy(shares, classes),
        "reliability": reliability(dict.fromkeys(MODELS, bins)),
        "robustness": robustness(dict.fromkeys(MODELS, steps)),
        "corruptions": corruption_examples(dict.fromkeys(("noise", "pixelation", "rotation"), images[:3])),
        "mistakes": mistakes(images, dict.fromkeys(MODELS, wrong), classes),
        "suspects": suspects(images, wrong * 2, classes),
    }
    plt.close("all")


def test_every_figure_says_what_it_was_given(drawn):
    assert {"8", "4"} & set(texts(drawn["superclass_confusion"])), "shares in percent"
    assert "20 + 9" in texts(drawn["confused_pairs"])
    assert "aquarium fish / lawn mower" in texts(drawn["confused_pairs"])
    left, right = drawn["class_accuracy"].axes
    assert len(left.get_yticklabels()) + len(right.get_yticklabels()) == 100
    means = np.mean([line.get_xdata() for line in left.lines if line.get_marker() == "o"], axis=0)
    assert (np.diff(means) >= 0).all(), "the hardest class first"
    assert "sweet pepper\n99%" in texts(drawn["mistakes"])
    assert sum(len(axis.images) for axis in drawn["suspects"].axes) == 16
    panels = [axis.get_title(loc="left") for axis in drawn["robustness"].axes if axis.lines]
    assert panels == ["noise", "blur", "pixelation", "occlusion", "rotation"]
    before, after = (drawn["reliability"].axes[0].lines[index] for index in (1, 2))
    assert before.get_label() == "before"
    assert after.get_xydata()[1].tolist() == [0.5, 0.25]


def test_a_contact_sheet_shows_two_pictures_of_every_class():
    labels = np.repeat(np.arange(12), 5)
    images = np.broadcast_to(labels[:, None, None, None] * 20, (60, 8, 8, 3)).astype(np.uint8)
    figure = contact_sheet(images, labels, [f"class_{label}" for label in range(12)], ["x", "y"], [0, 1] * 6)
    shown = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in shown[:2]] == ["class 0", "class 2"]  # of one superclass
    assert len(shown) == 12
    for axis in shown:
        picture = axis.images[0].get_array()
        assert picture.shape == (8, 16, 3)
        assert (picture == 20 * int(axis.get_title().split()[1])).all()


def test_every_model_has_one_colour_and_no_two_the_same():
    several = style.colours(["vit_scratch", "vit_transfer", "mobilenet_transfer", "one", "two"])
    assert len(set(several.values())) == 5
    assert several["vit_transfer"] == style.colours(["vit_transfer"])["vit_transfer"]


def test_the_same_figure_gives_the_same_file(histories, steps, tmp_path):
    for name in ("a.png", "b.png"):
        style.save(learning_curves(histories, steps, 100), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert not list(tmp_path.glob("*.unfinished"))


def assert_no_text_lies_over_another(figure, name=""):
    figure.canvas.draw()
    # Ticks beyond an axis's limits, and of an axis that is off, have labels, too, but those are not drawn.
    hidden = {
        tick.label1
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        if not axes.axison or not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    # The box around slanted text holds more than the text.
    shown = [
        (text.get_text(), text.get_window_extent())
        for text in figure.findobj(mpl.text.Text)
        if text.get_visible() and text.get_text().strip() and text.get_rotation() % 90 == 0 and text not in hidden
    ]
    for index, (text, box) in enumerate(shown):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, f"{name}: {text!r} leaves the page"
        for other, where in shown[index + 1 :]:
            assert not box.overlaps(where), f"{name}: {text!r} lies over {other!r}"


def test_no_text_lies_over_another(drawn):
    models = {
        "vit_scratch": (0.3, 0.29, 0.31),
        "vit_transfer": (0.8, 0.79, 0.81),
        "mobilenet_transfer": (0.6, 0.5, 0.7),
    }
    drawn["top1"] = top1(
        models, {"notebook: MobileNetV3-Large, head only": 0.64}, title="Top-1 on 10,000 test pictures"
    )
    for name, figure in drawn.items():
        assert_no_text_lies_over_another(figure, name)
