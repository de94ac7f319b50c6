"""The pages Compare and Mistakes in a real browser."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.gui import browser as chromium
from tests.gui.conftest import LogComparison, Register

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        chromium.chromium_executable() is None and not os.environ.get("CI"),
        reason="no Chromium on the PATH (Debian: apt-get install chromium)",
    ),
]
PICTURE = ".images li"
CHART = "[data-testid=stVegaLiteChart] :is(canvas, svg)"


@pytest.fixture
def browser() -> Iterator[Browser]:
    with chromium.headless_browser() as browser:
        yield browser


@pytest.fixture
def address(register: Register, log_comparison: LogComparison, tracking_uri: str) -> Iterator[str]:
    """The running app; its champion has a comparison."""
    log_comparison(register(model="vit_transfer"))
    with chromium.running_app(MLFLOW_TRACKING_URI=tracking_uri) as address:
        yield address


def open_page(context: BrowserContext, address: str, name: str, heading: str) -> Page:
    """Open a page by its address; returns once its pictures are there."""
    page = context.new_page()
    page.goto(f"{address}/{name}")
    page.get_by_role("heading", name=heading).wait_for()
    page.locator(PICTURE).first.wait_for()
    chromium.settle(page)
    return page


def assert_fits(page: Page) -> None:
    """Nothing lies upon something else, nothing is wider than the window."""
    assert page.locator(chromium.BLOCKS).count() > 3
    assert not chromium.overlaps(page.locator(chromium.BLOCKS))
    assert page.locator(chromium.PIECES).count() > page.locator(chromium.BLOCKS).count()
    assert not chromium.overlaps(page.locator(chromium.PIECES))
    assert not chromium.overlaps(page.locator(PICTURE))
    assert chromium.overflow(page) <= 0
    width = page.viewport_size["width"]
    for element in [*page.locator(PICTURE).all(), *page.locator(CHART).all()]:
        box = element.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width + 1


def test_a_person_compares_models_and_sees_pictures(address: str, browser: Browser, tmp_path: Path) -> None:
    with chromium.visitor(browser) as context:
        page = open_page(context, address, "compare", "Which model to ship?")
        expect(page.get_by_text("Ship vit_transfer").first).to_be_visible()
        expect(page.locator(CHART)).to_have_count(5)
        assert_fits(page)
        page.get_by_text("Only mobilenet_transfer is right").click()
        chromium.settle(page)
        expect(page.locator(PICTURE).first).to_contain_text("vit_transfer:")
        page.get_by_role("radio", name="Size").click()
        chromium.settle(page)
        expect(page.locator(CHART)).to_have_count(5)

    with chromium.visitor(browser, chromium.PHONE, dark=True) as context:
        page = open_page(context, address, "compare", "Which model to ship?")
        expect(page.locator(CHART)).to_have_count(5)
        assert_fits(page)
        assert chromium.brightness(page.locator(".images .truth").first, "color") > 180
        assert chromium.brightness(page.locator(".stApp"), "backgroundColor") < 60
        chromium.screenshot(page, tmp_path / "compare.png")
        assert (tmp_path / "compare.png").stat().st_size > 50_000


def test_a_person_looks_through_mistakes_with_the_keyboard(
    address: str, browser: Browser, register: Register, log_comparison: LogComparison, tmp_path: Path
) -> None:
    with chromium.visitor(browser, chromium.PHONE, dark=True) as context:
        page = open_page(context, address, "mistakes", "Mistakes")
        assert_fits(page)
        chromium.screenshot(page, tmp_path / "mistakes.png")
        assert (tmp_path / "mistakes.png").stat().st_size > 30_000

    with chromium.visitor(browser) as context:
        page = open_page(context, address, "mistakes", "Mistakes")
        assert_fits(page)
        expect(page.get_by_role("img", name="Test image: ").first).to_be_visible()
        choice = page.get_by_role("combobox", name="It shows")
        choice.focus()
        page.keyboard.type("white")
        page.keyboard.press("Enter")
        truths = page.locator(".images .truth")
        expect(truths.filter(has_not_text="white rabbit")).to_have_count(0)
        chromium.settle(page)
        assert set(truths.all_text_contents()) == {"white rabbit"}

        page.get_by_role("link", name="Compare").click()
        page.get_by_role("heading", name="Which model to ship?").wait_for()
        page.get_by_role("link", name="Mistakes").click()
        page.get_by_role("heading", name="Mistakes").wait_for()
        expect(truths.first).to_have_text("white rabbit")  # the choice is still there
        chromium.settle(page)
        assert set(truths.all_text_contents()) == {"white rabbit"}

        log_comparison(register(model="vit_scratch"))  # while the app runs
        page.get_by_role("combobox", name="The model says").focus()
        page.keyboard.type("red")
        page.keyboard.press("Enter")
        expect(page.get_by_text("There is a new champion: version 2 of cifar100-classifier")).to_be_visible()
        expect(page.get_by_text("version 2 of cifar100-classifier, vit_scratch")).to_be_visible()


def test_the_page_of_the_model_fits_a_telephone_in_the_dark(address: str, browser: Browser, tmp_path: Path) -> None:
    with chromium.visitor(browser, chromium.PHONE, dark=True) as context:
        page = context.new_page()
        page.goto(f"{address}/model")
        page.get_by_role("heading", name="Champion periods").wait_for()
        chromium.settle(page)
        assert page.locator(chromium.PIECES).count() > 4
        assert not chromium.overlaps(page.locator(chromium.PIECES))
        assert chromium.overflow(page) <= 0
        chromium.screenshot(page, tmp_path / "model.png")
        assert (tmp_path / "model.png").stat().st_size > 10_000
