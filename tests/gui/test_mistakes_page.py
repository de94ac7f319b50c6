"""The page Mistakes, with a real registry and a small comparison."""

import re
import shutil
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from gui import comparison, grid, registry
from gui.comparison import Answers, Explorer
from gui.grid import Tile
from gui.views.mistakes import select
from tests.gui.conftest import METADATA, LogComparison, Register
from tests.gui.pages import draw, html, only_error

NAMES = [name.replace("_", " ") for name in METADATA["class_names"]]


@pytest.fixture
def champion_run(register: Register, log_comparison: LogComparison, tmp_path: Path) -> Path:
    """The artifacts of the comparison that the champion, the scratch ViT, names."""
    return tmp_path / "mlartifacts" / log_comparison(register(model="vit_scratch")) / "artifacts"


def explorer_and_answers(model: str = "vit_scratch") -> tuple[Explorer, Answers]:
    explorer = comparison.of(registry.connect().champions()[0]).explorer()
    return explorer, explorer.answers(model)


def tiles(page: AppTest) -> list[tuple[str, str, float]]:
    """Truth, what was said, and the confidence in per cent, of each picture shown."""
    found = re.findall(
        r'"truth">(.*?)</span><span class="prediction">(.*?), ([\d.]+)\N{NARROW NO-BREAK SPACE}', html(page)
    )
    return [(truth, said, float(sure)) for truth, said, sure in found]


def count(page: AppTest) -> int:
    return int(re.match(r"\*\*([\d,]+) pictures?\*\*", page.markdown[0].value)[1].replace(",", ""))


def test_it_opens_with_the_champions_mistakes_the_most_confident_first(champion_run: Path) -> None:
    page = draw("mistakes")
    explorer, answers = explorer_and_answers()
    assert page.selectbox(key="of-model").value == "vit_scratch"
    assert count(page) == (answers.predicted != explorer.labels).sum()
    shown = tiles(page)
    assert len(shown) == 24
    assert all(said == f"said {said.removeprefix('said ')}" and said != f"said {truth}" for truth, said, _ in shown)
    sure = [sure for _, _, sure in shown]
    assert sure == sorted(sure, reverse=True)
    assert sure[0] == pytest.approx(100 * answers.confidence[answers.predicted != explorer.labels].max(), abs=0.06)


def test_the_filters_hold_together(champion_run: Path) -> None:
    page = draw("mistakes")
    page.selectbox(key="truth").set_value(3)  # an index, shown as a name
    page.selectbox(key="answer").set_value(0).run()
    assert tiles(page)
    assert {(truth, said) for truth, said, _ in tiles(page)} == {(NAMES[3], f"said {NAMES[0]}")}
    page.selectbox(key="of-model").set_value("mobilenet_transfer").run()
    explorer, answers = explorer_and_answers("mobilenet_transfer")
    assert count(page) == ((explorer.labels == 3) & (answers.predicted == 0)).sum()


def test_a_superclass_is_that_of_the_picture(champion_run: Path) -> None:
    page = draw("mistakes")
    page.selectbox(key="superclass").set_value(2).run()  # animals: white rabbit, black cat
    assert {truth for truth, _, _ in tiles(page)} == {"white rabbit", "black cat"}


def test_confidence_has_two_ends(champion_run: Path) -> None:
    page = draw("mistakes")
    page.slider(key="confidence").set_value((40, 60)).run()
    assert tiles(page)
    assert all(40 <= sure <= 60 for _, _, sure in tiles(page))


def test_right_answers_can_be_seen_too(champion_run: Path) -> None:
    page = draw("mistakes")
    page.segmented_control(key="kind").set_value("right").run()
    right = count(page)
    assert {said for _, said, _ in tiles(page)} == {"right"}
    page.segmented_control(key="kind").set_value("all").run()
    assert count(page) == 120
    explorer, answers = explorer_and_answers()
    assert right == (answers.predicted == explorer.labels).sum()


def test_what_fits_nothing_says_so(champion_run: Path) -> None:
    page = draw("mistakes")
    page.selectbox(key="truth").set_value(1)
    page.selectbox(key="answer").set_value(1).run()  # a mistake that is none
    assert "No test picture fits" in page.info[0].value
    assert not tiles(page)
    assert not page.get("pagination")


def test_pages_follow_one_another_and_another_choice_starts_at_the_first(champion_run: Path) -> None:
    page = draw("mistakes")
    first = tiles(page)
    page.get("pagination")[0].set_value(2).run()
    second = tiles(page)
    assert second
    assert second != first
    assert max(sure for _, _, sure in second) <= min(sure for _, _, sure in first)
    page.segmented_control(key="kind").set_value("all").run()
    assert tiles(page) == first
    page.segmented_control(key="kind").set_value("wrong").run()
    assert tiles(page) == first


def test_select_puts_mistakes_before_right_answers(champion_run: Path) -> None:
    explorer, answers = explorer_and_answers()
    rows = select(explorer, answers, "all", None, None, None, (0, 1))
    assert sorted(rows) == list(range(120))
    is_wrong = answers.predicted[rows] != explorer.labels[rows]
    assert (np.diff(is_wrong.astype(int)) <= 0).all()


def test_a_picture_reaches_the_browser_pixel_by_pixel_with_its_alternative_text(champion_run: Path) -> None:
    page = draw("mistakes")
    explorer, answers = explorer_and_answers()
    row = select(explorer, answers, "wrong", None, None, None, (0, 1))[0]
    encoded, alt = re.search(r'src="data:image/png;base64,([^"]*)".*?alt="([^"]*)"', html(page)).groups()
    assert (np.asarray(Image.open(BytesIO(b64decode(encoded)))) == explorer.images[row]).all()
    assert alt == f"Test image: {explorer.class_names[explorer.labels[row]]}"


def test_a_page_of_photographs_is_no_more_than_two_hundred_kilobytes() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)  # compresses worst
    assert len(grid.grid(Tile(picture, "sea", ["said sky"]) for picture in noise)) < 200_000


def test_names_in_the_grid_are_text_not_markup() -> None:
    written = grid.grid([Tile(np.zeros((2, 2, 3), np.uint8), '"><script>', ["<b>", "a & b"])])
    assert "<script>" not in written
    assert "<b>" not in written
    assert "a &amp; b" in written


def test_without_the_test_pictures_it_is_one_sentence(champion_run: Path) -> None:
    shutil.rmtree(champion_run / "explorer")
    assert "explorer/dataset.json" in only_error(draw("mistakes"))


def test_a_champion_without_comparison_is_one_sentence(register: Register) -> None:
    register()
    assert "No comparison was logged" in only_error(draw("mistakes"))


def test_a_new_champion_is_announced_here_too(
    champion_run: Path, register: Register, log_comparison: LogComparison
) -> None:
    page = draw("mistakes")
    log_comparison(register(model="vit_transfer"))
    page.selectbox(key="superclass").set_value(1).run()
    assert "version 2 of cifar100-classifier" in page.toast[0].value
    assert "version 2" in page.caption[0].value
