"""What stands between every page and its model: one sentence, and the way on."""

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.gui.conftest import RED, LogComparison, Register, picture_file
from tests.gui.pages import draw, html, only_error
from tests.gui.test_picture_loader import REFUSED

PAGES = ("classify", "batch", "compare", "mistakes", "model")


@contextmanager
def closed_port() -> Iterator[int]:
    """Bound, but nobody listens: connections are refused."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield closed.getsockname()[1]


@pytest.mark.parametrize("name", PAGES)
def test_every_page_says_how_to_make_a_model_where_there_is_none(tracking_uri: str, name: str) -> None:
    assert "No model is registered yet" in only_error(draw(name))


@pytest.mark.parametrize("name", PAGES)
def test_every_page_names_a_server_that_is_down_and_comes_back_with_it(
    register: Register, log_comparison: LogComparison, tracking_uri: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    log_comparison(register(model="vit_scratch"))
    with closed_port() as port:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:secret@127.0.0.1:{port}")
        page = draw(name)
        message = only_error(page)
    assert "does not answer" in message
    assert "secret" not in message
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    page.button[0].click().run()
    assert not page.exception
    assert not [error for error in page.error if "does not answer" in error.value]


@pytest.mark.parametrize("name", ["classify", "batch"])
def test_pages_that_need_the_model_name_one_that_does_not_load(register: Register, tmp_path: Path, name: str) -> None:
    register()
    shutil.rmtree(tmp_path / "models")
    page = draw(name)
    page.file_uploader[0].set_value([("red.png", picture_file(RED), "image/png")]).run()
    assert "Version 1 of cifar100-classifier does not load" in only_error(page)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("case", [case for case in REFUSED if case != "too many bytes"])  # not let in by the browser
def test_a_file_that_is_no_picture_is_refused_in_a_sentence(register: Register, case: str) -> None:
    register()
    content, reason = REFUSED[case]
    page = draw("classify")
    page.file_uploader[0].set_value([("picture.png", content, "image/png")]).run()
    assert not page.exception
    assert not page.error
    assert reason in page.warning[0].value
    assert "answers" not in html(page)
