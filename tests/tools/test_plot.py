"""The picture of a sweep: what it shows, on which scale, and that it can be read."""

import itertools

import matplotlib as mpl
import numpy as np
import pytest

from stages.report.plots import style
from stages.report.plots.sweep import sweep

mpl.use("Agg")


def grid(**values):
    """Every value with every other; top-1 rises with the place in the grid."""
    combinations = list(itertools.product(*values.values()))
    tried = {name: [row[index] for row in combinations] for index, name in enumerate(values)}
    return tried, list(np.linspace(0.25, 0.28, len(combinations)))


def texts(figure):
    figure.canvas.draw()
    return [text for text in figure.findobj(mpl.text.Text) if text.get_visible() and text.get_text().strip()]


def ticks(axis):
    axis.figure.canvas.draw()
    return [label.get_text() for label in axis.get_xticklabels()]


def test_one_parameter_is_a_line_with_the_best_named():
    figure = sweep({"muon_lr": [0.004, 0.001, 0.002]}, [0.26, 0.25, 0.27], model="vit_scratch")
    [axis] = figure.axes
    line, best = axis.lines
    assert line.get_xydata().tolist() == [[0.001, 0.25], [0.002, 0.27], [0.004, 0.26]]
    assert best.get_xydata().tolist() == [[0.002, 0.27]]
    assert axis.get_xscale() == "log"
    assert ticks(axis) == ["0.001", "0.002", "0.004"]
    assert {"27.0%", "muon_lr", "vit_scratch: top-1 on validation"} <= {text.get_text() for text in texts(figure)}


def test_two_parameters_are_a_map_with_the_best_framed():
    tried, top1 = grid(muon_lr=[0.002, 0.001], adamw_lr=[0.01, 0.03, 0.02])
    del tried["muon_lr"][-1], tried["adamw_lr"][-1], top1[-1]  # one failed
    figure = sweep(tried, top1, model="vit_scratch")
    [axis] = figure.axes
    assert ticks(axis) == ["0.001", "0.002"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["0.03", "0.02", "0.01"]  # upwards
    cells = axis.images[0].get_array().filled(np.nan)
    np.testing.assert_allclose(cells, [[top1[4], top1[1]], [np.nan, top1[2]], [top1[3], top1[0]]])
    [frame] = axis.patches
    assert frame.get_xy() == (-0.5, -0.5)
    assert [text.get_text() for text in axis.texts if text.get_weight() == "bold"] == [f"{top1[4]:.1%}"]
    assert [text.get_text() for text in axis.texts].count("none") == 1


def test_three_parameters_are_a_panel_each_with_the_best_of_each_value():
    tried, top1 = grid(lr=[0.01, 0.1, 1], depth=[2, 3, 4], flip=[True, False])
    figure = sweep(tried, top1, model="vit_scratch")
    lr, depth, flip = figure.axes
    assert [axis.get_xlabel() for axis in figure.axes] == ["lr", "depth", "flip"]
    _, best, _ = lr.lines
    assert best.get_xdata().tolist() == [0.01, 0.1, 1]
    assert best.get_ydata() == pytest.approx([top1[5], top1[11], top1[17]])
    assert (lr.get_xscale(), depth.get_xscale()) == ("log", "linear")
    assert ticks(flip) == ["true", "false"]
    assert flip.lines[1].get_linestyle() == "None"


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1, 2, 3], "linear"),
        ([1, 2, 4], "log"),
        ([0.0001, 0.001, 0.01], "log"),
        ([0.0, 0.1, 1.0], "linear"),
        ([1, 2], "linear"),
        ([0.01, 0.1], "log"),
    ],
)
def test_numbers_that_grow_by_factors_stand_on_a_logarithmic_axis(values, scale):
    [axis] = sweep({"x": values}, [0.1] * len(values), model="a").axes
    assert axis.get_xscale() == scale


LONG = "/home/somebody/with/a/long/path/deit_tiny_patch16_224.safetensors"


@pytest.mark.parametrize(
    "values",
    [
        {"muon_lr": [0.0005, 0.001, 0.002, 0.004], "adamw_lr": [0.0005, 0.001, 0.002]},
        {"lr": [0.00001 * 2**power for power in range(12)]},
        {"depth": list(range(1, 30)), "a": [1, 2, 3, 100], "weights": ["random", LONG, "pretrained"], "b": [None, 1]},
        {"weights": ["random", LONG], "depth": list(range(1, 30))},
        {"weights": ["random", LONG, "pretrained"], "depth": [1, 2]},
        {"seed": [0]},
    ],
)
def test_no_text_lies_over_another(values):
    figure = sweep(*grid(**values), model="mobilenet_transfer")
    shown = texts(figure)
    corners = []
    for text in shown:
        box = text.get_window_extent()
        assert figure.bbox.x0 <= box.x0, text
        assert box.x1 <= figure.bbox.x1, text
        # A slanted text fills its box from one corner to the other: two beside each other share theirs.
        if not text.get_rotation() % 90:
            corners.append((text, box))
    assert len(corners) > 4
    for (text, box), (other, other_box) in itertools.combinations(corners, 2):
        assert not box.overlaps(other_box), (text, other)


def test_the_same_sweep_gives_the_same_file(tmp_path):
    for name in ("a.png", "b.png"):
        style.save(sweep(*grid(a=[1, 2], b=[1, 2]), model="x"), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
