"""The app in a real browser."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.gui import browser as chromium
from tests.gui.conftest import BLUE, RED, LogComparison, Register, picture_file
from tests.gui.test_archives import zip_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        chromium.chromium_executable() is None and not os.environ.get("CI"),
        reason="no Chromium on the PATH (Debian: apt-get install chromium)",
    ),
]


@pytest.fixture
def browser() -> Iterator[Browser]:
    with chromium.headless_browser() as browser:
        yield browser


def test_a_person_uploads_pictures_and_reads_what_they_show(
    register: Register, tracking_uri: str, tmp_path: Path, browser: Browser
) -> None:
    register()
    red, blue, large, broken = (tmp_path / name for name in ("red.jpg", "blue.png", "large.bmp", "broken.png"))
    red.write_bytes(picture_file(RED, (640, 400), "JPEG"))
    blue.write_bytes(picture_file(BLUE))
    large.write_bytes(picture_file(BLUE, (1200, 1000), "BMP"))  # 3.6 MB
    broken.write_bytes(picture_file(BLUE)[:60])
    with chromium.running_app(MLFLOW_TRACKING_URI=tracking_uri) as address:
        with chromium.visitor(browser) as context:
            page = chromium.open_app(context, address)
            top = chromium.top(page.locator(chromium.UPLOAD))  # before the registry and the model are there
            rows = chromium.classify(page, red)
            assert chromium.top(page.locator(chromium.UPLOAD)) == top
            expect(rows).to_have_count(5)
            expect(rows.first).to_contain_text("red apple plants")
            expect(page.get_by_alt_text("The uploaded picture")).to_be_visible()
            expect(page.get_by_alt_text("The same picture as a square of 8 by 8 pixels, enlarged")).to_be_visible()
            expect(page.get_by_text("64.0")).to_be_visible()
            assert chromium.overflow(page) <= 0
            assert (
                chromium.brightness(page.locator(".answers").first, "color")
                < 100
                < chromium.brightness(page.locator(".stApp").first, "backgroundColor")
            )
            for picture in (blue, large):
                chromium.classify(page, picture)
                expect(rows.first).to_contain_text("blue sea")
            chromium.upload(page, broken)
            page.get_by_text("damaged").wait_for()
            expect(rows).to_have_count(0)

        with chromium.visitor(browser, chromium.PHONE, dark=True) as context:
            page = chromium.open_app(context, address)
            rows = chromium.classify(page, red)
            assert chromium.overflow(page) <= 0
            assert (
                chromium.brightness(page.locator(".answers").first, "color")
                > 180
                > chromium.brightness(page.locator(".stApp").first, "backgroundColor")
            )
            boxes = [row.bounding_box() for row in rows.all()]
            bottoms = [0.0] + [box["y"] + box["height"] for box in boxes if box]
            assert all(box and box["y"] >= bottom for box, bottom in zip(boxes, bottoms, strict=False))
            chromium.screenshot(page, tmp_path / "phone.png")
            assert (tmp_path / "phone.png").stat().st_size > 10_000


# Run by Python as it starts: notes every file that is opened for writing, temporary ones without a name too.
NOTE_WRITING = """
import os, sys
notes = os.open(os.environ["OPENED_FOR_WRITING"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def note(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        os.write(notes, f"{arguments[0]}\\n".encode())

sys.addaudithook(note)
"""


def test_an_uploaded_picture_is_written_nowhere(
    register: Register, tracking_uri: str, tmp_path: Path, browser: Browser
) -> None:
    register()
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(NOTE_WRITING)
    small, large, notes = tmp_path / "small.png", tmp_path / "large.bmp", tmp_path / "opened"
    small.write_bytes(picture_file(RED))
    large.write_bytes(picture_file(BLUE, (1200, 1000), "BMP"))  # 3.6 MB: more than form parsers keep in memory
    watched = {"PYTHONPATH": str(tmp_path / "site"), "OPENED_FOR_WRITING": str(notes)}
    running = chromium.running_app(MLFLOW_TRACKING_URI=tracking_uri, **watched)
    with running as address, chromium.visitor(browser) as context:
        page = chromium.open_app(context, address)
        expect(chromium.classify(page, small).first).to_contain_text("red apple")  # all is loaded now
        before = notes.read_text()
        expect(chromium.classify(page, large).first).to_contain_text("blue sea")
        assert notes.read_text() == before


def choose(page: Page, source: str) -> None:
    """Upload, Camera or Test pictures."""
    page.get_by_role("radio", name=source).click()
    chromium.settle(page)


def test_several_pictures_why_and_all_models_fit_a_telephone_in_the_dark(
    register: Register, tracking_uri: str, tmp_path: Path, browser: Browser
) -> None:
    register(model="vit_scratch", alias="vit_scratch")
    register(model="vit_transfer", alias="vit_transfer", champion=False)
    names = ("a_red_picture_with_a_very_long_name_indeed.png", "blue.png")
    for name, colour in zip(names, (RED, BLUE), strict=True):
        (tmp_path / name).write_bytes(picture_file(colour))
    too_large = tmp_path / "large.png"
    too_large.write_bytes(bytes(33 * 2**20))
    with (
        chromium.running_app(MLFLOW_TRACKING_URI=tracking_uri) as address,
        chromium.visitor(browser, chromium.PHONE, dark=True) as context,
    ):
        page = chromium.open_app(context, address)
        top = chromium.top(page.locator(chromium.UPLOAD))
        page.locator("input[type=file]").set_input_files([tmp_path / name for name in names])
        rows = page.locator(chromium.ANSWER)
        expect(rows.first).to_contain_text("blue sea", timeout=chromium.PATIENCE)
        assert chromium.top(page.locator(chromium.UPLOAD)) == top, "choosing a model came in between"
        page.get_by_role("radio", name="a_red_picture_").click()
        expect(rows.first).to_contain_text("red apple", timeout=chromium.PATIENCE)
        page.get_by_text("Show what the answer rests on").click()
        page.get_by_alt_text("What the answer red apple rests on").wait_for()
        page.get_by_text("All 2 models side by side").click()
        expect(page.locator("ol.answers")).to_have_count(3, timeout=chromium.PATIENCE)
        chromium.settle(page)
        assert chromium.overflow(page) <= 0
        assert chromium.overlaps(page.locator(chromium.BLOCKS)) == []
        assert (
            chromium.overlaps(page.locator(f"{chromium.ANSWER}, [data-testid=stImage], [data-testid=stToggle]")) == []
        )
        page.locator("input[type=file]").set_input_files(too_large)
        page.get_by_text("32.0MB or smaller").wait_for()
        expect(rows.first).to_contain_text("red apple")


def test_a_photograph_from_the_camera_is_classified(register: Register, tracking_uri: str, browser: Browser) -> None:
    register()
    with (
        chromium.running_app(MLFLOW_TRACKING_URI=tracking_uri) as address,
        chromium.visitor(browser) as context,
    ):
        context.grant_permissions(["camera"])
        page = chromium.open_app(context, address)
        assert page.locator("video").count() == 0
        choose(page, "Camera")
        page.get_by_role("button", name="Take Photo").click()
        expect(page.locator(chromium.ANSWER)).to_have_count(5, timeout=chromium.PATIENCE)


def test_test_pictures_are_reached_by_keyboard(
    register: Register, log_comparison: LogComparison, tracking_uri: str, browser: Browser
) -> None:
    log_comparison(register())
    with (
        chromium.running_app(MLFLOW_TRACKING_URI=tracking_uri) as address,
        chromium.visitor(browser, chromium.PHONE) as context,
    ):
        page = chromium.open_app(context, address)
        page.locator(".stCaption, [data-testid=stCaptionContainer]").get_by_text("knows 6 things").wait_for()
        choose(page, "Test pictures")
        samples = page.locator(".st-key-samples button")
        expect(samples).to_have_count(12, timeout=chromium.PATIENCE)
        chromium.settle(page)
        boxes = [sample.bounding_box() for sample in samples.all()]
        assert all(box and box["width"] >= 72 and box["height"] >= 72 for box in boxes)
        assert chromium.overlaps(samples) == []
        assert all(image.get_attribute("alt") for image in samples.locator("img").all())
        samples.nth(4).focus()
        page.keyboard.press("Tab")
        expect(samples.nth(5)).to_be_focused()
        page.keyboard.press("Enter")
        page.get_by_text("the picture is filed as").wait_for()
        assert chromium.overflow(page) <= 0


def test_an_archive_becomes_a_table_to_download(
    register: Register, tracking_uri: str, tmp_path: Path, browser: Browser
) -> None:
    register()
    archive = zip_of({"red.png": picture_file(RED), "blue.png": picture_file(BLUE), "broken.png": b"broken"})
    (tmp_path / "all.zip").write_bytes(archive)
    with (
        chromium.running_app(MLFLOW_TRACKING_URI=tracking_uri) as address,
        chromium.visitor(browser, chromium.PHONE) as context,
    ):
        page = context.new_page()
        page.goto(f"{address}/batch")
        page.locator("input[type=file]").wait_for(state="attached")
        page.locator("input[type=file]").set_input_files(tmp_path / "all.zip")
        page.get_by_text("2 of 3 files classified").wait_for()
        page.get_by_text("1 could not be read").wait_for()
        chromium.settle(page)
        assert chromium.overflow(page) <= 0
        assert chromium.overlaps(page.locator(chromium.BLOCKS)) == []
        with page.expect_download() as download:
            page.get_by_role("button", name="All of it as CSV").click()
        written = download.value.path().read_text(encoding="utf-8")
        assert "all.zip/red.png,1,red apple,plants," in written
        assert 'all.zip/broken.png,,,,,,,"This file' in written
        chromium.screenshot(page, tmp_path / "batch.png")
