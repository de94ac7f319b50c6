"""The app as people meet it: a Streamlit server on a free port, seen through a headless Chromium."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from gui.registry import REPOSITORY

DESKTOP = {"width": 1000, "height": 900}  # pixels
PHONE = {"width": 375, "height": 812}
ANSWER = "ol.answers > li"
PATIENCE = 60_000  # milliseconds: frameworks are slow to import on a busy machine
MAIN = "[data-testid=stMainBlockContainer]"
BLOCKS = f"{MAIN} > [data-testid=stVerticalBlock] > *"
# What a page is made of, in columns too: charts, images, choices, texts; containers around them left out.
PIECES = f"{MAIN} [data-testid=stElementContainer]:not(:has([data-testid=stElementContainer]))"


def chromium_executable() -> str | None:
    """The first Chromium or Chrome on the PATH."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def running_app(**environment: str) -> Iterator[str]:
    """Start the app from the repository root, as `streamlit run gui/app.py` does; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "streamlit", "run", "gui/app.py"]
    environment |= {"STREAMLIT_SERVER_PORT": str(port), "STREAMLIT_SERVER_HEADLESS": "true"}
    with subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | environment, stdout=subprocess.DEVNULL) as server:
        try:
            patience = Retry(PATIENCE // 500, backoff_factor=0.5, backoff_max=0.5)
            with requests.Session() as session:
                session.mount(address, HTTPAdapter(max_retries=patience))
                session.get(f"{address}/_stcore/health").raise_for_status()
            yield address
        finally:
            server.terminate()


@contextmanager
def headless_browser() -> Iterator[Browser]:
    """The system's Chromium, else Playwright's own, without a window, before a camera that shows a test card."""
    expect.set_options(timeout=PATIENCE)
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium_executable(), args=camera) as browser,
    ):
        yield browser


def visitor(browser: Browser, size: dict[str, int] = DESKTOP, dark: bool = False) -> BrowserContext:
    """A browser of its own cookies, of the given size and theme, at two device pixels per pixel; to be closed."""
    context = browser.new_context(viewport=size, color_scheme="dark" if dark else "light", device_scale_factor=2)
    context.set_default_timeout(PATIENCE)
    return context


def open_app(context: BrowserContext, address: str) -> Page:
    """Open the app, or a page of it that takes uploads; returns once the upload is there."""
    page = context.new_page()
    page.goto(address)
    page.locator("input[type=file]").wait_for(state="attached")
    return page


def upload(page: Page, *files: Path) -> None:
    """Choose files; those chosen before are removed first, so that what is drawn from now on is about these."""
    remove = page.get_by_role("button", name="Remove ")
    for left in range(remove.count(), 0, -1):
        remove.first.click()
        expect(remove).to_have_count(left - 1)
    expect(page.locator(ANSWER)).to_have_count(0)
    page.locator("input[type=file]").set_input_files(files)


def classify(page: Page, *files: Path) -> Locator:
    """Upload images; returns the rows of the answer, the likeliest class first, once all is drawn."""
    upload(page, *files)
    rows = page.locator(ANSWER)
    rows.first.wait_for()
    settle(page)
    return rows


def settle(page: Page) -> None:
    """Wait until the page is drawn, images too."""
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
    page.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def overflow(page: Page) -> int:
    """By how many pixels the content is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


def overlaps(elements: Locator) -> list[tuple[int, int]]:
    """Which two of the elements share more than a pixel of the page."""
    boxes = [box for element in elements.all() if (box := element.bounding_box()) and box["width"] and box["height"]]
    return [
        (first, second)
        for second, b in enumerate(boxes)
        for first, a in enumerate(boxes[:second])
        if min(a["x"] + a["width"], b["x"] + b["width"]) - max(a["x"], b["x"]) > 1
        if min(a["y"] + a["height"], b["y"] + b["height"]) - max(a["y"], b["y"]) > 1
    ]


def brightness(element: Locator, colour: str) -> float:
    """Mean of the RGB values, 0 to 255, of a CSS colour of the element."""
    css = element.evaluate(f"element => getComputedStyle(element).{colour}")
    return sum(map(float, css[css.index("(") + 1 : -1].split(",")[:3])) / 3


def screenshot(page: Page, file: Path) -> None:
    """The whole page as PNG, however long it is."""
    height = page.locator(MAIN).evaluate("element => Math.ceil(element.getBoundingClientRect().height)")
    width = page.evaluate("window.innerWidth")
    page.set_viewport_size({"width": width, "height": max(height, page.evaluate("window.innerHeight"))})
    page.screenshot(path=file, animations="disabled")
