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

from gui import grid
from gui.comparison import ImageExplorer, TopPredictions
from gui.grid import Tile
from gui.views.mistakes import select
from tests.gui.conftest import METADATA, LogComparison, Register, champions_comparison
from tests.gui.pages import draw, html, only_error

NAMES = [name.replace("_", " ") for name in METADATA["class_names"]]
TILE = r'"truth">(.*?)</span><span class="prediction">(.*?), ([\d.]+)\N{NARROW NO-BREAK SPACE}%'


def explored(model: str = "vit_scratch") -> tuple[ImageExplorer, TopPredictions]:
    explorer = champions_comparison().explorer()
    return explorer, explorer.predictions(model)


def tiles(page: AppTest) -> list[tuple[str, str, float]]:
    """Label, prediction, and the confidence in per cent, of each image shown."""
    return [(truth, text, float(sure)) for truth, text, sure in re.findall(TILE, html(page))]


def count(page: AppTest) -> int:
    return int(re.match(r"\*\*([\d,]+) images?\*\*", page.markdown[0].value)[1].replace(",", ""))


def test_it_opens_with_the_champions_mistakes_the_most_confident_first(champion_run: Path) -> None:
    page = draw("mistakes")
    explorer, predictions = explored()
    wrong = predictions.predicted != explorer.labels
    assert page.selectbox(key="of-model").value == "vit_scratch"
    assert count(page) == wrong.sum()
    shown = tiles(page)
    assert len(shown) == 24
    assert all(text.startswith("predicted ") and text != f"predicted {truth}" for truth, text, _ in shown)
    sure = [sure for _, _, sure in shown]
    assert sure == sorted(sure, reverse=True)
    assert sure[0] == pytest.approx(100 * predictions.confidence[wrong].max(), abs=0.06)
    row = select(explorer, predictions, "wrong")[0]
    encoded = re.search(r'src="data:image/png;base64,([^"]*)"', html(page))[1]
    assert (np.asarray(Image.open(BytesIO(b64decode(encoded)))) == explorer.images[row]).all()
    assert re.search(r'alt="Test image: (.*?)"', html(page))[1] == explorer.class_names[explorer.labels[row]]


def test_the_filters_hold_together(champion_run: Path) -> None:
    page = draw("mistakes")
    page.selectbox(key="truth").set_value(3)  # an index, shown as a name
    page.selectbox(key="predicted").set_value(0).run()
    assert {(truth, text) for truth, text, _ in tiles(page)} == {(NAMES[3], f"predicted {NAMES[0]}")}
    page.selectbox(key="of-model").set_value("mobilenet_transfer").run()
    explorer, predictions = explored("mobilenet_transfer")
    assert count(page) == ((explorer.labels == 3) & (predictions.predicted == 0)).sum()
    page.selectbox(key="superclass").set_value(0).run()  # plants, which white rabbits are not
    assert "No test image fits" in page.info[0].value
    assert not tiles(page)


def test_superclass_and_confidence_filter_too(champion_run: Path) -> None:
    page = draw("mistakes")
    page.selectbox(key="superclass").set_value(2)  # animals: white rabbit, black cat
    page.slider(key="confidence").set_value((40, 60)).run()
    assert {truth for truth, _, _ in tiles(page)} == {"white rabbit", "black cat"}
    assert all(40 <= sure <= 60 for _, _, sure in tiles(page))


def test_right_predictions_and_further_pages_can_be_seen_too(champion_run: Path) -> None:
    explorer, predictions = explored()
    page = draw("mistakes")
    first = tiles(page)
    page.get("pagination")[0].set_value(2).run()
    assert max(sure for _, _, sure in tiles(page)) <= min(sure for _, _, sure in first)
    page.segmented_control(key="kind").set_value("right").run()
    assert count(page) == (predictions.predicted == explorer.labels).sum()
    assert {text for _, text, _ in tiles(page)} == {"right"}
    page.segmented_control(key="kind").set_value("all").run()
    assert count(page) == 120
    assert tiles(page) == first, "another choice starts at its first page, mistakes before right predictions"


def test_a_page_of_images_is_small_and_its_names_are_text_not_markup() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)  # compresses worst
    assert len(grid.grid(Tile(image, "sea", ["predicted sky"]) for image in noise)) < 200_000
    written = grid.grid([Tile(np.zeros((2, 2, 3), np.uint8), '"><script>', ["<b>", "a & b"])])
    assert "<script>" not in written
    assert "<b>" not in written
    assert "a &amp; b" in written


def test_what_is_missing_is_one_line(champion_run: Path, register: Register, log_comparison: LogComparison) -> None:
    shutil.rmtree(champion_run / "explorer")
    page = draw("mistakes")
    assert "explorer/dataset.json" in only_error(page)
    log_comparison(register(model="vit_transfer"))
    page.button[0].click().run()
    assert "version 2 of cifar100-classifier" in page.toast[0].value
    assert "version 2 of cifar100-classifier, vit_transfer" in page.caption[0].value
    assert page.selectbox(key="of-model").value == "vit_transfer"
    register()
    assert "No comparison was logged" in only_error(draw("mistakes"))
