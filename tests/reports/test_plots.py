"""The figures: what they show, and that the same input gives the same bytes."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from stages.plots import style
from stages.plots.contact_sheet import contact_sheet
from stages.plots.learning_curves import learning_curves
from stages.plots.top1 import top1

mpl.use("Agg")


@pytest.fixture
def histories():
    return {
        "vit_scratch": pd.DataFrame({"epoch": [1, 2], "seconds": [60.0, 120.0], "val_top1": [0.1, 0.2]}),
        "another": pd.DataFrame({"epoch": [1], "seconds": [90.0], "val_top1": [0.5]}),
    }


def texts(figure):
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_text()]


def test_learning_curves_show_every_model_from_chance_on(histories):
    figure = learning_curves(histories, num_classes=100)
    by_epoch, by_time = figure.axes
    curves = {line.get_label(): line for line in by_epoch.lines if not line.get_label().startswith("_")}
    assert curves["vit_scratch"].get_xydata().tolist() == [[0, 0.01], [1, 0.1], [2, 0.2]]
    assert curves["another"].get_xydata().tolist() == [[0, 0.01], [1, 0.5]]
    assert by_time.lines[0].get_xdata().tolist() == [0, 1, 2]
    assert {"epochs", "minutes of training", "top-1 on validation", "chance"} <= set(texts(figure))


def test_top1_is_sorted_and_names_every_value():
    figure = top1({"vit_scratch": 0.3, "vit_transfer": 0.8}, {"notebook": 0.4}, title="Top-1")
    [axis] = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["vit_scratch", "notebook", "vit_transfer"]
    assert [bar.get_width() for bar in axis.patches] == [0.3, 0.4, 0.8]
    assert {"30.0%", "40.0%", "80.0%"} <= set(texts(figure))
    assert axis.patches[1].get_facecolor() == mpl.colors.to_rgba(style.GREY)


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


def test_the_same_figure_gives_the_same_file(histories, tmp_path):
    for name in ("a.png", "b.png"):
        style.save(learning_curves(histories, 100), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert not list(tmp_path.glob("*.unfinished"))


def test_no_text_lies_over_another():
    names = {"vit_scratch": 0.3, "vit_transfer": 0.8, "mobilenet_transfer": 0.62}
    figure = top1(names, {"notebook: MobileNetV3-Large, head only": 0.64}, title="Top-1 on 10,000 test pictures")
    figure.canvas.draw()
    boxes = [
        text.get_window_extent()
        for text in figure.findobj(mpl.text.Text)
        if text.get_visible() and text.get_text().strip()
    ]
    assert len(boxes) > 8
    for index, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])
