"""Pages as Streamlit draws them, without a browser."""

from streamlit.testing.v1 import AppTest


def draw(name: str) -> AppTest:
    """A page of the app, by the name of its module."""
    page = AppTest.from_string(f"from gui.views import {name}\n{name}.page()", default_timeout=60).run()
    assert not page.exception, page.exception
    return page


def only_error(page: AppTest) -> str:
    """The one sentence that the page shows instead of what it cannot show, beside it the button to try again."""
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
