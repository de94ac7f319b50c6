"""The page Compare, with a real registry and a small comparison."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from gui import comparison, registry
from tests.gui.conftest import LogComparison, Register
from tests.gui.pages import draw, html, only_error

CHARTS = ["What accuracy costs", "Learning curves", "When pictures get worse", "Can its confidence be believed?"]


@pytest.fixture
def champion_run(register: Register, log_comparison: LogComparison, tmp_path: Path) -> Path:
    """The artifacts of the comparison that the champion names."""
    return tmp_path / "mlartifacts" / log_comparison(register(model="vit_transfer")) / "artifacts"


def test_the_verdict_is_on_top_and_the_table_holds_every_model_with_its_interval(champion_run: Path) -> None:
    page = draw("compare")
    assert page.markdown[0].value.startswith("**Ship vit_transfer**")
    assert "version 1 of cifar100-classifier, vit_transfer" in page.caption[0].value
    table = page.dataframe[0].value
    assert list(table["model"]) == ["vit_transfer", "mobilenet_transfer", "vit_scratch"]
    assert table["top1"].is_monotonic_decreasing
    for row in table.itertuples():
        low, high = map(float, row.interval.split(" to "))
        assert low < row.top1 < high
    assert not page.error


def test_every_chart_is_drawn_with_an_alternative_text(champion_run: Path) -> None:
    page = draw("compare")
    assert [subheader.value for subheader in page.subheader][:5] == [*CHARTS, "Superclasses mixed up"]
    drawn = page.get("vega_lite_chart")
    assert len(drawn) == 5
    assert all(chart.proto.alt for chart in drawn)


def test_the_charts_follow_the_choices(champion_run: Path) -> None:
    page = draw("compare")
    before = [chart.proto.spec for chart in page.get("vega_lite_chart")]
    page.segmented_control(key="cost").set_value("megabytes")
    page.segmented_control(key="measure").set_value("loss")
    page.segmented_control(key="calibration").set_value("before")
    page.selectbox(key="corruption").set_value("noise")
    page.selectbox(key="confused").set_value("vit_scratch").run()
    after = [chart.proto.spec for chart in page.get("vega_lite_chart")]
    for old, new, expected in zip(before, after, ["megabytes of weights", "loss (nats)", "", "", ""], strict=True):
        assert old != new
        assert expected in new


def test_intervals_and_the_course_of_training_are_drawn(champion_run: Path) -> None:
    cost, curves = (json.loads(chart.proto.spec) for chart in draw("compare").get("vega_lite_chart")[:2])
    [rule] = [layer for layer in cost["layer"] if layer["mark"]["type"] == "rule"]
    assert (rule["encoding"]["y"]["field"], rule["encoding"]["y2"]["field"]) == ("low", "high")
    assert cost["layer"].index(rule) > 0, "over the dots, which are higher than most intervals"
    fields = [layer["encoding"]["y"]["field"] for layer in curves["layer"]]
    assert fields == ["train_top1", "val_top1"]


@pytest.mark.parametrize("kind", ["first", "second", "neither"])
def test_pictures_that_one_model_gets_right_and_the_other_does_not(champion_run: Path, kind: str) -> None:
    page = draw("compare")
    page.selectbox(key="first").set_value("vit_scratch").run()
    assert "vit_scratch" not in page.selectbox(key="second").options
    page.selectbox(key="second").set_value("mobilenet_transfer").run()
    explorer = comparison.of(registry.connect().champions()[0]).explorer()
    first, second = (explorer.answers(model) for model in ("vit_scratch", "mobilenet_transfer"))
    is_right = first.predicted == explorer.labels, second.predicted == explorer.labels
    wanted = {"first": (True, False), "second": (False, True), "neither": (False, False)}
    number = list(wanted).index(kind)
    count = int(((is_right[0] == wanted[kind][0]) & (is_right[1] == wanted[kind][1])).sum())
    radio = page.radio[0]
    assert radio.options[number].endswith(f": {count} of 120")
    radio.set_value(["Only vit_scratch is right", "Only mobilenet_transfer is right", "Both are wrong"][number]).run()
    tiles = re.findall(r'"truth">(.*?)<.*?vit_scratch: (.*?), .*?mobilenet_transfer: (.*?), ', html(page))
    assert 0 < len(tiles) == min(count, 24)
    assert all((truth == a, truth == b) == wanted[kind] for truth, a, b in tiles)
    assert html(page).count('alt="Test image: ') == len(tiles)


def test_more_pictures_than_fit_a_page_are_on_the_next_one(champion_run: Path) -> None:
    page = draw("compare")
    explorer = comparison.of(registry.connect().champions()[0]).explorer()
    answers = {model: explorer.answers(model).predicted == explorer.labels for model in explorer.models}
    page.selectbox(key="first").set_value("vit_transfer").run()
    page.selectbox(key="second").set_value("vit_scratch").run()
    count = int(np.sum(answers["vit_transfer"] & ~answers["vit_scratch"]))
    assert count > 24
    first = html(page)
    page.get("pagination")[0].set_value(2).run()
    assert html(page).count("<li>") == min(24, count - 24)
    assert first.split("<li>")[1] not in html(page)


def test_the_report_is_there_without_pictures_and_links_that_lead_nowhere(champion_run: Path) -> None:
    report = draw("compare").expander[0].markdown[0].value
    assert report.startswith("**Ship vit_transfer**")
    assert "### Is it luck?" in report
    assert "All classes, after [a paper](https://arxiv.org/abs/1311.2901)" in report
    assert "![" not in report
    assert "](" not in report.replace("](http", "")


def test_a_champion_without_comparison_is_one_sentence(register: Register) -> None:
    register()
    assert "No comparison was logged with version 1 of cifar100-classifier" in only_error(draw("compare"))


def test_without_the_test_pictures_verdict_table_and_charts_are_still_there(champion_run: Path) -> None:
    shutil.rmtree(champion_run / "explorer")
    page = draw("compare")
    assert "explorer/dataset.json" in only_error(page)
    assert page.markdown[0].value.startswith("**Ship vit_transfer**")
    assert len(page.get("vega_lite_chart")) == 5


def test_a_table_of_an_earlier_layout_is_one_sentence(champion_run: Path) -> None:
    (champion_run / "tables" / "curves.csv").write_text("epoch\n1\n")
    page = draw("compare")
    assert "tables/curves.csv" in only_error(page)


def test_a_new_champion_brings_its_comparison_at_the_next_interaction(
    champion_run: Path, register: Register, log_comparison: LogComparison
) -> None:
    page = draw("compare")
    assert not page.toast
    log_comparison(register(model="vit_scratch"))
    page.selectbox(key="corruption").set_value("noise").run()
    assert "version 2 of cifar100-classifier" in page.toast[0].value
    assert "version 2 of cifar100-classifier, vit_scratch" in page.caption[0].value
    assert not page.run().toast
