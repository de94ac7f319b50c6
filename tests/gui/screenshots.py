"""Screenshots of the app with a classified picture, by the champion of the tracking store in use.

python -m tests.gui.screenshots OUT.png PICTURE [--theme dark] [--phone]
"""

import argparse
from pathlib import Path

from tests.gui.browser import DESKTOP, PHONE, classify, headless_browser, open_app, running_app, screenshot, visitor


def main() -> None:
    """Start the app, upload the picture, save what the browser shows."""
    parser = argparse.ArgumentParser(prog="python -m tests.gui.screenshots", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="PNG file to write")
    parser.add_argument("picture", type=Path, help="picture to upload")
    parser.add_argument("--theme", choices=("light", "dark"), default="light")
    parser.add_argument("--phone", action="store_true", help="at the width of a telephone")
    arguments = parser.parse_args()
    size = PHONE if arguments.phone else DESKTOP
    with (
        running_app() as address,
        headless_browser() as browser,
        visitor(browser, size, dark=arguments.theme == "dark") as context,
    ):
        page = open_app(context, address)
        classify(page, arguments.picture)
        screenshot(page, arguments.out)
    print(f"{arguments.out} shows the app with {arguments.picture}")


if __name__ == "__main__":
    main()
