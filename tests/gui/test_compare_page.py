"""The page Compare, with a real registry and a small comparison."""

import json
import re
import shutil
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from gui import comparison
from tests.gui.conftest import champions_comparison
from tests.gui.pages import draw, html, only_error

RIGHT = {  # whether vit_scratch is right, and mobilenet_transfer
    "Only vit_scratch is right": (True, False),
    "Only mobilenet_transfer is right": (False, True),
    "Both are wrong": (False, False),
}


def specs(page: AppTest) -> list[str]:
    return [chart.proto.spec for chart in page.get("vega_lite_chart")]


def test_verdict_table_charts_and_report_are_those_of_the_champions_comparison(champion_run: Path) -> None:
    page = draw("compare")
    assert not page.error
    assert page.markdown[0].value.startswith("**Ship vit_transfer**")
    assert "version 1 of cifar100-classifier, vit_scratch" in page.caption[0].value
    table = page.dataframe[0].value
    assert list(table["model"]) == ["vit_transfer", "mobilenet_transfer", "vit_scratch"]
    summary = champions_comparison().table("summary")
    assert table["top1"].tolist() == (100 * summary["top1"]).tolist()
    assert table["superclass_top1"].tolist() == pytest.approx((table["top1"] + 1).tolist())  # as the files have it
    for row in table.itertuples():
        low, high = map(float, row.interval.split(" to "))
        assert low < row.top1 < high
    assert len(specs(page)) == 5
    assert all(chart.proto.alt for chart in page.get("vega_lite_chart"))
    report = page.expander[0].markdown[0].value
    assert report.startswith("**Ship vit_transfer**")
    assert "All classes, after [a paper](https://arxiv.org/abs/1311.2901)" in report
    assert "![" not in report
    assert "](" not in report.replace("](http", "")


def test_the_charts_follow_the_choices(champion_run: Path) -> None:
    page = draw("compare")
    before = specs(page)
    curves = json.loads(before[1])
    assert [layer["encoding"]["y"]["field"] for layer in curves["layer"]] == ["train_top1", "val_top1"]
    page.segmented_control(key="cost").set_value("megabytes")
    page.segmented_control(key="measure").set_value("loss")
    page.segmented_control(key="calibration").set_value("before")
    page.selectbox(key="corruption").set_value("noise")
    page.selectbox(key="confused").set_value("vit_scratch").run()
    after = specs(page)
    assert all(old != new for old, new in zip(before, after, strict=True))
    assert "megabytes of weights" in after[0]
    assert "loss (nats)" in after[1]


@pytest.mark.parametrize("kind", RIGHT)
def test_images_that_one_model_classifies_correctly_and_the_other_does_not(champion_run: Path, kind: str) -> None:
    page = draw("compare")
    page.selectbox(key="first").set_value("vit_scratch").run()
    assert "vit_scratch" not in page.selectbox(key="second").options
    page.selectbox(key="second").set_value("mobilenet_transfer").run()
    explorer = champions_comparison().explorer()
    right = [
        explorer.predictions(model).predicted == explorer.labels for model in ("vit_scratch", "mobilenet_transfer")
    ]
    count = int(((right[0] == RIGHT[kind][0]) & (right[1] == RIGHT[kind][1])).sum())
    assert f"{kind}: {count} of 120" in page.radio[0].options
    page.radio[0].set_value(kind).run()
    tiles = re.findall(r'"truth">(.*?)<.*?vit_scratch: (.*?), .*?mobilenet_transfer: (.*?), ', html(page))
    assert 0 < len(tiles) == min(count, 24)
    assert all((truth == a, truth == b) == RIGHT[kind] for truth, a, b in tiles)


def test_where_nothing_differs_and_where_there_is_one_model_that_is_said(champion_run: Path) -> None:
    explorer = champion_run / "explorer"
    shutil.copy(explorer / "probabilities-vit_transfer.npy", explorer / "probabilities-mobilenet_transfer.npy")
    page = draw("compare")
    assert page.info[0].value == "There is no such image."
    content = json.loads((champion_run / "comparison.json").read_text())
    (champion_run / "comparison.json").write_text(json.dumps(content | {"ranking": content["ranking"][:1]}))
    comparison._open.cache_clear()
    assert "There is one model only." in [caption.value for caption in draw("compare").caption]


def test_what_is_missing_is_one_line_below_what_is_there(champion_run: Path) -> None:
    explorer = (champion_run / "explorer").rename(champion_run / "elsewhere")
    page = draw("compare")
    assert "`explorer/dataset.json` of the comparison is out of reach" in only_error(page)
    assert len(specs(page)) == 5
    explorer.rename(champion_run / "explorer")
    assert not page.run().error
    (champion_run / "tables" / "summary.csv").unlink()  # as in stores that an earlier release wrote
    comparison._open.cache_clear()
    page = draw("compare")
    assert "`tables/summary.csv` of the comparison is out of reach" in only_error(page)
    assert page.markdown[0].value.startswith("**Ship vit_transfer**")
