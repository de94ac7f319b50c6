"""Screenshots of the app for the README, by the champion of the tracking store in use.

python -m tests.gui.screenshots [FOLDER] [--picture FILE] [--theme dark] [--phone]
"""

import argparse
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import BrowserContext, Page

from gui import comparison, registry
from tests.gui.browser import PHONE, classify, headless_browser, open_app, running_app, screenshot, visitor

WINDOW = {"width": 1200, "height": 1090}  # pixels: what the README shows of a long page
SHOWN = 0.48  # which of the test pictures is classified where none is given: this share of the way through them
PATIENCE = 3_000  # milliseconds that charts are given to draw after their page is there


def main() -> None:
    """Start the app, classify a picture, open the comparison, save what the browser shows."""
    parser = argparse.ArgumentParser(prog="python -m tests.gui.screenshots", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("docs"), help="where the PNG files go")
    parser.add_argument("--picture", type=Path, help="picture to classify; without it, one of the test pictures")
    parser.add_argument("--theme", choices=("light", "dark"), default="light")
    parser.add_argument("--phone", action="store_true", help="at the width of a telephone")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as temporary,
        running_app() as address,
        headless_browser() as browser,
        visitor(browser, PHONE if arguments.phone else WINDOW, dark=arguments.theme == "dark") as context,
    ):
        page = open_app(context, address)
        classify(page, arguments.picture or _test_picture(Path(temporary)))
        page.get_by_text("Show what the answer rests on").click()
        page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
        page.wait_for_timeout(PATIENCE)
        screenshot(page, arguments.folder / "classify.png")
        page = _open(context, f"{address}/compare")
        page.screenshot(path=arguments.folder / "compare.png", animations="disabled")
    print(f"Written: {arguments.folder}/classify.png and {arguments.folder}/compare.png")


def _test_picture(folder: Path) -> Path:
    """One of the test pictures as a file."""
    explorer = comparison.of(registry.wanted(registry.connect().champions())[0]).explorer()
    file = folder / "picture.png"
    Image.fromarray(explorer.images[int(SHOWN * len(explorer.images))]).save(file)
    return file


def _open(context: BrowserContext, address: str) -> Page:
    page = context.new_page()
    page.goto(address)
    page.locator(".pictures li").first.wait_for()  # the last thing on the page
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
    page.wait_for_timeout(PATIENCE)
    return page


if __name__ == "__main__":
    main()
