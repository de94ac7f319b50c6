"""The pages Compare and Mistakes in a real browser."""

import os
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.gui import browser as chromium
from tests.gui.conftest import LogComparison, Register

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        chromium.chromium_executable() is None and not os.environ.get("CI"),
        reason="no Chromium on the PATH (Debian: apt-get install chromium)",
    ),
]
IMAGE = ".images li"
CHART = "[data-testid=stVegaLiteChart] :is(canvas, svg)"


def assert_fits(page: Page) -> None:
    """Nothing lies upon something else, nothing is wider than the window."""
    page.locator(chromium.BLOCKS).nth(3).wait_for()  # between two runs of the script a page may lack its end
    chromium.settle(page)
    assert page.locator(chromium.PIECES).count() > page.locator(chromium.BLOCKS).count() > 3
    for elements in (chromium.BLOCKS, chromium.PIECES, IMAGE):
        assert not chromium.overlaps(page.locator(elements))
    assert chromium.overflow(page) <= 0
    for element in page.locator(CHART).all():
        box = element.bounding_box()
        assert 0 <= box["x"] <= box["x"] + box["width"] <= page.viewport_size["width"] + 1


def test_a_person_compares_models_and_looks_through_mistakes(
    register: Register, log_comparison: LogComparison, tracking_uri: str, tmp_path: Path
) -> None:
    log_comparison(register(model="vit_transfer"))
    with (
        chromium.running_app(MLFLOW_TRACKING_URI=tracking_uri) as address,
        chromium.headless_browser() as browser,
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
            chromium.screenshot(page, tmp_path / f"{name}.png")
            assert (tmp_path / f"{name}.png").stat().st_size > 30_000

        page.goto(f"{address}/model")
        page.get_by_role("heading", name="Champion periods").wait_for()
        chromium.settle(page)
        assert page.locator(chromium.PIECES).count() > 4
        assert not chromium.overlaps(page.locator(chromium.PIECES))
        assert chromium.overflow(page) <= 0

        page = desktop.new_page()
        page.goto(f"{address}/compare")
        expect(page.get_by_text("Ship vit_transfer").first).to_be_visible()
        page.locator(IMAGE).first.wait_for()
        assert_fits(page)
        expect(page.locator(CHART)).to_have_count(5)
        page.get_by_text("Only mobilenet_transfer is right").click()
        expect(page.locator(IMAGE).first).to_contain_text("vit_transfer:")
        page.get_by_role("radio", name="Size").click()
        chromium.settle(page)
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
