"""The app as people meet it: a Streamlit server on a free port, seen through a headless Chromium."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
DESKTOP = {"width": 1000, "height": 900}  # pixels
PHONE = {"width": 375, "height": 812}
ANSWER = "ol.answers > li"
UPLOAD = "[data-testid=stFileUploader]"
PATIENCE = 60_000  # milliseconds: frameworks are slow to import on a busy machine
BLOCKS = "[data-testid=stMainBlockContainer] > [data-testid=stVerticalBlock] > *"
# What a page is made of, in columns too: charts, pictures, choices, texts; containers around them left out.
PIECES = (
    "[data-testid=stMainBlockContainer] [data-testid=stElementContainer]:not(:has([data-testid=stElementContainer]))"
)


def chromium_executable() -> str | None:
    """The first Chromium or Chrome on the PATH."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def running_app(**environment: str) -> Iterator[str]:
    """Start the app from the repository root, as `streamlit run gui/app.py` does; yields its address."""
    with started_app(**environment) as (address, _):
        yield address


@contextmanager
def started_app(**environment: str) -> "Iterator[tuple[str, subprocess.Popen[bytes]]]":
    """The same; yields its address and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        "gui/app.py",
        f"--server.port={port}",
        "--server.headless=true",
    ]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            if not _becomes_healthy(address, server):
                log.seek(0)
                said = log.read().decode(errors="replace")[-2000:]
                raise RuntimeError(f"the app did not start (exit status {server.poll()}):\n{said}")
            yield address, server
        finally:
            server.terminate()
            try:
                server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _becomes_healthy(address: str, server: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urlopen(f"{address}/_stcore/health", timeout=5):
                return True
        except (URLError, OSError):
            time.sleep(0.2)
    return False


@contextmanager
def headless_browser() -> Iterator[Browser]:
    """Debian's Chromium without a window, a GPU or a call home, before a camera that shows a test card.

    RuntimeError if none is installed.
    """
    executable = chromium_executable()
    if executable is None:
        raise RuntimeError("no Chromium on the PATH: install it (Debian: apt-get install chromium)")
    quiet = ("background-networking", "component-update", "sync")
    switches = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", *(f"--disable-{q}" for q in quiet)]
    switches += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=switches)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visitor(browser: Browser, size: dict[str, int] = DESKTOP, dark: bool = False) -> Iterator[BrowserContext]:
    """A browser of its own cookies, of the given size and theme, at two device pixels per pixel."""
    context = browser.new_context(
        viewport={"width": size["width"], "height": size["height"]},
        color_scheme="dark" if dark else "light",
        device_scale_factor=2,
    )
    context.set_default_timeout(PATIENCE)
    try:
        yield context
    finally:
        context.close()


def open_app(context: BrowserContext, address: str) -> Page:
    """Open the app; returns once the upload is there."""
    page = context.new_page()
    page.goto(address)
    page.get_by_role("heading", name="What is in this picture?").wait_for()
    page.locator("input[type=file]").wait_for(state="attached")
    return page


def upload(page: Page, picture: Path) -> None:
    """Choose a file; those chosen before are removed first, so that what is drawn from now on is about this."""
    remove = page.get_by_role("button", name="Remove ")
    for left in range(remove.count(), 0, -1):
        remove.first.click()
        expect(remove).to_have_count(left - 1, timeout=PATIENCE)
    expect(page.locator(ANSWER)).to_have_count(0, timeout=PATIENCE)
    page.locator("input[type=file]").set_input_files(picture)


def classify(page: Page, picture: Path) -> Locator:
    """Upload a picture; returns the rows of the answer, the likeliest class first, once all is drawn."""
    upload(page, picture)
    rows = page.locator(ANSWER)
    rows.first.wait_for()
    settle(page)
    return rows


def settle(page: Page) -> None:
    """Wait until the page is drawn, pictures too."""
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
    page.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def top(element: Locator) -> float:
    """Where an element begins on the page, in pixels from above."""
    box = element.bounding_box()
    assert box is not None
    return box["y"]


def overflow(page: Page) -> int:
    """By how many pixels the content is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


def overlaps(elements: Locator) -> list[tuple[int, int]]:
    """Which two of the elements share more than a pixel of the page."""
    boxes = [box for element in elements.all() if (box := element.bounding_box()) and box["width"] and box["height"]]
    found = []
    for second, b in enumerate(boxes):
        for first, a in enumerate(boxes[:second]):
            wide = min(a["x"] + a["width"], b["x"] + b["width"]) - max(a["x"], b["x"])
            high = min(a["y"] + a["height"], b["y"] + b["height"]) - max(a["y"], b["y"])
            if wide > 1 and high > 1:
                found.append((first, second))
    return found


def brightness(element: Locator, colour: str) -> float:
    """Mean of the RGB values, 0 to 255, of a CSS colour of the element."""
    css = element.evaluate(f"element => getComputedStyle(element).{colour}")
    return sum(map(float, css[css.index("(") + 1 : -1].split(",")[:3])) / 3


def screenshot(page: Page, file: Path) -> None:
    """The whole page as PNG, however long it is."""
    content = page.locator("[data-testid=stMainBlockContainer]").bounding_box()
    size = page.viewport_size
    if content and size and content["height"] > size["height"]:
        page.set_viewport_size({"width": size["width"], "height": int(content["height"]) + 1})
    file.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=file, animations="disabled")
