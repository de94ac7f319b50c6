"""The app in a real browser."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.gui import browser as chromium
from tests.gui.conftest import BLUE, RED, LogComparison, Register, image_file
from tests.gui.test_archives import zip_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        chromium.chromium_executable() is None and not os.environ.get("CI"),
        reason="no Chromium on the PATH (Debian: apt-get install chromium)",
    ),
]
IMAGE = ".images li"
CHART = "[data-testid=stVegaLiteChart] :is(canvas, svg)"
# Run by Python as it starts: notes every file that is opened for writing, temporary ones without a name too.
NOTE_WRITING = """
import os, sys
notes = os.open(os.environ["OPENED_FOR_WRITING"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def note(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        os.write(notes, f"{arguments[0]}\\n".encode())

sys.addaudithook(note)
"""


@pytest.fixture
def browser() -> Iterator[Browser]:
    with chromium.headless_browser() as browser:
        yield browser


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A red image, a blue one, a broken one, one that is too large, and a ZIP file."""
    contents = {
        "a_red_image_with_a_very_long_name_indeed.jpg": image_file(RED, (640, 400), "JPEG"),
        "blue.bmp": image_file(BLUE, (1200, 1000), "BMP"),  # 3.6 MB: more than form parsers keep in memory
        "broken.png": image_file(BLUE)[:60],
        "too_large.png": bytes(33 * 2**20),
        "all.zip": zip_of({"red.png": image_file(RED), "blue.png": image_file(BLUE), "broken.png": b"broken"}),
    }
    return [tmp_path / name for name, content in contents.items() if (tmp_path / name).write_bytes(content)]


def test_uploads_and_photos_are_classified_and_written_nowhere(
    register: Register, tracking_uri: str, tmp_path: Path, files: list[Path], browser: Browser
) -> None:
    register()
    red, blue, broken, _, archive = files
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(NOTE_WRITING)
    notes = tmp_path / "opened"
    watched = {"PYTHONPATH": str(tmp_path / "site"), "OPENED_FOR_WRITING": str(notes)}
    running = chromium.running_app(MLFLOW_TRACKING_URI=tracking_uri, **watched)
    with running as address, chromium.visitor(browser) as context:
        context.grant_permissions(["camera"])
        page = chromium.open_app(context, address)
        box = page.locator("[data-testid=stFileUploader]")
        before = box.bounding_box()  # before the registry and the model are there
        rows = chromium.classify(page, red)
        assert before["y"] == box.bounding_box()["y"]
        expect(rows).to_have_count(5)
        expect(rows.first).to_contain_text("red apple plants")
        assert chromium.overflow(page) <= 0
        assert chromium.brightness(page.locator(".answers").first, "color") < 100
        assert chromium.brightness(page.locator(".stApp").first, "backgroundColor") > 100
        written = notes.read_text()  # all is loaded now
        expect(chromium.classify(page, blue).first).to_contain_text("blue sea")
        chromium.upload(page, broken)
        page.get_by_text("damaged").wait_for()
        expect(rows).to_have_count(0)
        assert page.locator("video").count() == 0
        page.get_by_role("radio", name="Camera").click()
        page.wait_for_function("document.querySelector('video')?.readyState > 2")
        page.get_by_role("button", name="Take Photo").click()
        expect(rows).to_have_count(5)
        page = chromium.open_app(context, f"{address}/batch")
        page.locator("input[type=file]").set_input_files(archive)
        page.get_by_text("2 of 3 images").wait_for()
        with page.expect_download() as download:
            page.get_by_role("button", name="Download CSV", exact=True).click()
        lines = download.value.path().read_text(encoding="utf-8")
        assert "all.zip/red.png,1,red apple,plants," in lines
        assert 'all.zip/broken.png,,,,,,,"This file' in lines
        assert notes.read_text() == written


def test_every_kind_of_answer_fits_a_phone_in_the_dark(
    register: Register, log_comparison: LogComparison, tracking_uri: str, files: list[Path], browser: Browser
) -> None:
    log_comparison(register(model="vit_scratch", alias="vit_scratch"))
    register(model="vit_transfer", alias="vit_transfer", champion=False)
    red, blue, _, too_large, _ = files
    with (
        chromium.running_app(MLFLOW_TRACKING_URI=tracking_uri) as address,
        chromium.visitor(browser, chromium.PHONE, dark=True) as context,
    ):
        page = chromium.open_app(context, address)
        rows = chromium.classify(page, red, blue)
        expect(rows.first).to_contain_text("blue sea")
        page.get_by_role("combobox", name="Image").press("ArrowUp")
        page.keyboard.press("Enter")
        expect(rows.first).to_contain_text("red apple")
        page.get_by_text("Explain").click()
        page.get_by_alt_text("What red apple rests on").first.wait_for()
        page.get_by_text("All 2 models").click()
        expect(page.locator("ol.answers")).to_have_count(3)
        assert_fits(page)
        assert chromium.overlaps(rows) == []
        assert chromium.brightness(page.locator(".answers").first, "color") > 180
        assert chromium.brightness(page.locator(".stApp").first, "backgroundColor") < 100
        page.locator("input[type=file]").set_input_files(too_large)
        page.get_by_text("32.0MB or smaller").wait_for()
        expect(rows.first).to_contain_text("red apple")

        page.get_by_role("radio", name="Test images").click()
        samples = page.locator(".st-key-samples button")
        expect(samples).to_have_count(12)
        chromium.settle(page)
        assert all(sample.bounding_box()["width"] >= 72 for sample in samples.all())
        assert all(image.get_attribute("alt") for image in samples.locator("img").all())
        assert chromium.overlaps(samples) == []
        samples.nth(4).focus()
        page.keyboard.press("Enter")
        page.get_by_text("the label is").first.wait_for()
        assert chromium.overflow(page) <= 0


def assert_fits(page: Page) -> None:
    """Nothing lies upon something else, nothing is wider than the window."""
    page.locator(chromium.BLOCKS).nth(3).wait_for()  # between two runs of the script a page may lack its end
    chromium.settle(page)
    assert page.locator(chromium.PIECES).count() >= page.locator(chromium.BLOCKS).count() > 3
    for elements in (chromium.BLOCKS, chromium.PIECES, IMAGE):
        assert not chromium.overlaps(page.locator(elements))
    assert chromium.overflow(page) <= 0
    for element in page.locator(CHART).all():
        box = element.bounding_box()
        assert 0 <= box["x"] <= box["x"] + box["width"] <= page.viewport_size["width"] + 1


def test_a_person_compares_models_and_looks_through_mistakes(
    champion_run: Path, tracking_uri: str, browser: Browser
) -> None:
    with (
        chromium.running_app(MLFLOW_TRACKING_URI=tracking_uri) as address,
        chromium.visitor(browser, chromium.PHONE, dark=True) as phone,
        chromium.visitor(browser) as desktop,
    ):
        page = phone.new_page()
        for name in ("compare", "mistakes"):
            page.goto(f"{address}/{name}")
            page.locator(IMAGE).first.wait_for()
            assert_fits(page)
            assert chromium.brightness(page.locator(IMAGE).locator(".truth").first, "color") > 180
            assert chromium.brightness(page.locator(".stApp"), "backgroundColor") < 60

        page.goto(f"{address}/model")
        page.get_by_role("heading", name="Champion periods").wait_for()
        assert_fits(page)

        page = desktop.new_page()
        page.goto(f"{address}/compare")
        expect(page.get_by_text("Ship vit_transfer").first).to_be_visible()
        page.locator(IMAGE).first.wait_for()
        assert_fits(page)
        expect(page.locator(CHART)).to_have_count(5)

        page.get_by_role("link", name="Mistakes").click()
        truths = page.locator(IMAGE).locator(".truth")
        truths.first.wait_for()
        assert_fits(page)
        page.get_by_role("combobox", name="Label", exact=True).focus()
        page.keyboard.type("white")
        page.keyboard.press("Enter")
        expect(truths.filter(has_not_text="white rabbit")).to_have_count(0)
        page.get_by_role("link", name="Compare").click()
        page.get_by_role("heading", name="Model comparison").wait_for()
        page.get_by_role("link", name="Mistakes").click()
        page.get_by_role("heading", name="Mistakes").wait_for()
        expect(truths.first).to_have_text("white rabbit")  # the choice is still there
        chromium.settle(page)
        assert set(truths.all_text_contents()) == {"white rabbit"}
