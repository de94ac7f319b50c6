"""Pages as Streamlit draws them, without a browser."""

import re
from html import unescape

from streamlit.testing.v1 import AppTest

from gui.registry import REPOSITORY

APP = REPOSITORY / "gui" / "app.py"


def draw(name: str) -> AppTest:
    """A page of the app, by the name of its module."""
    page = AppTest.from_string(f"from gui.views import {name}\n{name}.page()", default_timeout=60).run()
    assert not page.exception, page.exception
    return page


def open_app() -> AppTest:
    """The whole app, which opens with the page Classify."""
    page = AppTest.from_file(APP, default_timeout=60).run()
    assert not page.exception, page.exception
    return page


def upload(page: AppTest, *files: bytes | tuple[str, bytes]) -> AppTest:
    """Put files, or files with their names, in place of the ones before."""
    named = [file if isinstance(file, tuple) else ("image.png", file) for file in files]
    page.file_uploader[0].set_value([(*file, "application/octet-stream") for file in named]).run()
    assert not page.exception, page.exception
    return page


def only_error(page: AppTest) -> str:
    """The one line that the page shows instead of what it cannot show, beside it the button to try again."""
    assert not page.exception, page.exception
    assert len(page.error) == 1
    assert [button.label for button in page.button] == ["Try again"]
    message = page.error[0].value
    assert "\n" not in message
    assert "Traceback" not in message
    return message


def html(page: AppTest) -> str:
    """All HTML that the page wrote itself."""
    return "".join(element.proto.body for element in page.get("html"))


def answers(page: AppTest) -> list[list[tuple[str, str, float]]]:
    """Class, superclass and percentage of each bar, top first, of each answer on the page."""
    row = r'<li><span>(.*?) <span class="superclass">(.*?)</span></span><span class="probability">([\d.]+)'
    charts = html(page).split('<ol class="answers">')[1:]
    found = ([tuple(map(unescape, bar)) for bar in re.findall(row, chart)] for chart in charts)
    return [[(name, superclass, float(percent)) for name, superclass, percent in bars] for bars in found]


def top_class(page: AppTest) -> str:
    """The class of the first bar of the one answer on the page."""
    ((top, *_),) = answers(page)
    return top[0]
