"""Screenshots of the app for the README, by the champion of the tracking store in use.

python -m tests.gui.screenshots [FOLDER]
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from gui import registry
from stages.common.files import write_json
from stages.tools import provenance
from tests.gui.browser import classify, headless_browser, open_app, running_app, screenshot, settle, visitor
from tests.gui.conftest import champions_comparison

WINDOW = {"width": 1200, "height": 1090}  # pixels: what the README shows of a long page
SHOWN = 0.48  # which of the test images is classified: this share of the way through them
PATIENCE = 3_000  # milliseconds that charts are given to draw after their page is there


def main() -> None:
    """Start the app, classify an image, open the comparison, save what the browser shows."""
    parser = argparse.ArgumentParser(prog="python -m tests.gui.screenshots", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("docs"), help="where the PNG files go")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as temporary,
        running_app() as address,
        headless_browser() as browser,
        visitor(browser, WINDOW) as context,
    ):
        page = open_app(context, address)
        classify(page, _test_image(Path(temporary)))
        page.get_by_text("Explain").click()
        page.get_by_text("Orange: ").or_(page.get_by_text("No single part")).wait_for()
        settle(page)
        screenshot(page, arguments.folder / "classify.png")
        page = context.new_page()
        page.goto(f"{address}/compare")
        page.locator(".images li").first.wait_for()  # the last thing on the page
        settle(page)
        page.wait_for_timeout(PATIENCE)
        page.screenshot(path=arguments.folder / "compare.png", animations="disabled")
    write_json(arguments.folder / "screenshots.json", _origin())
    print(f"Written: {arguments.folder}/classify.png, compare.png and screenshots.json")


def _origin() -> dict[str, Any]:
    """What they show: this code, with the champion of the store in use."""
    store = registry.connect()
    champion = store.champions()[0]
    tags = store.training(champion).data.tags
    return provenance.here(tags["params_sha256"], tags["data_sha256"]) | {
        "champion": str(champion),
        "weights_sha256": champion.tags["weights_sha256"],
    }


def _test_image(folder: Path) -> Path:
    """One of the test images as a file."""
    explorer = champions_comparison().explorer()
    file = folder / "image.png"
    Image.fromarray(explorer.images[int(SHOWN * len(explorer.images))]).save(file)
    return file


if __name__ == "__main__":
    main()
