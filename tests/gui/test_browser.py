"""The app in a real browser."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.gui import browser as chromium
from tests.gui.conftest import BLUE, RED, Register, picture_file

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


def overflow(page: Page) -> int:
    """By how many pixels the content is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


def brightness(page: Page, selector: str, colour: str) -> float:
    """Mean of the RGB values, 0 to 255, of a CSS colour of the first element that matches."""
    css = page.locator(selector).first.evaluate(f"element => getComputedStyle(element).{colour}")
    return sum(map(float, css[css.index("(") + 1 : -1].split(",")[:3])) / 3


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
            rows = chromium.classify(page, red)
            expect(rows).to_have_count(5)
            expect(rows.first).to_contain_text("red apple plants")
            expect(page.get_by_alt_text("The uploaded picture")).to_be_visible()
            expect(page.get_by_alt_text("The same picture as a square of 8 by 8 pixels, enlarged")).to_be_visible()
            expect(page.get_by_text("64.0")).to_be_visible()
            assert overflow(page) <= 0
            assert brightness(page, ".answers", "color") < 100 < brightness(page, ".stApp", "backgroundColor")
            for picture in (blue, large):
                chromium.classify(page, picture)
                expect(rows.first).to_contain_text("blue sea")
            chromium.upload(page, broken)
            page.get_by_text("damaged").wait_for()
            expect(rows).to_have_count(0)

        with chromium.visitor(browser, chromium.PHONE, dark=True) as context:
            page = chromium.open_app(context, address)
            rows = chromium.classify(page, red)
            assert overflow(page) <= 0
            assert brightness(page, ".answers", "color") > 180 > brightness(page, ".stApp", "backgroundColor")
            boxes = [row.bounding_box() for row in rows.all()]
            bottoms = [0.0] + [box["y"] + box["height"] for box in boxes if box]
            assert all(box and box["y"] >= bottom for box, bottom in zip(boxes, bottoms, strict=False))
            chromium.screenshot(page, tmp_path / "phone.png")
            assert (tmp_path / "phone.png").stat().st_size > 10_000
