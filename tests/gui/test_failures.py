"""Whatever stands between a page and its answer is one line with a way on."""

import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gui import bars
from tests.gui.conftest import RED, LogComparison, Register, image_file, spoil
from tests.gui.pages import answers, draw, only_error, open_app, upload

Break = Callable[[Register, Path], object]
PAGES = ("classify", "batch", "compare", "mistakes", "model")


def without_library(folder: Path) -> None:
    code = folder / "models/0/onnx_model.py"
    code.write_text("import a_runtime_that_is_not_here\n" + code.read_text())


def spoiled(statement: str) -> Break:
    return lambda register, folder: (register(), spoil(folder / "models/0", statement))


BROKEN: dict[str, tuple[Break, str]] = {
    "no database": (lambda _, folder: (folder / "mlflow.db").unlink(), "make demo"),
    "nothing registered": (lambda *_: None, "make demo"),
    "no database file": (lambda _, folder: (folder / "mlflow.db").write_bytes(b"x" * 999), "mlflow.db"),
    "no champion": (lambda register, _: register(champion=False), "cifar100-classifier is champion"),
    "files gone": (lambda register, folder: (register(), shutil.rmtree(folder / "models")), "Version 1 of cifar100"),
    "library missing": (lambda register, folder: (register(), without_library(folder)), "a_runtime_that_is_not_here"),
    "no classes": (lambda register, _: register(without=["class_names"]), "class_names"),
    "fails": (spoiled("raise ValueError(7)"), "ValueError: 7"),
    "not a number": (spoiled("return np.full((1, 6), np.nan)"), "Version 1 of cifar100"),
    "wrong shape": (spoiled("return np.zeros((1, 5), np.float32)"), "Version 1 of cifar100"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_model_or_registry_is_one_line(register: Register, tmp_path: Path, case: str) -> None:
    break_it, expected = BROKEN[case]
    break_it(register, tmp_path)
    page = upload(open_app(), image_file(RED))
    assert expected in only_error(page)
    assert not answers(page)
    assert (tmp_path / "mlflow.db").exists() == (case != "no database")
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


@pytest.mark.parametrize("name", PAGES)
def test_every_page_names_a_server_that_is_down_and_comes_back_with_it(
    register: Register, log_comparison: LogComparison, tracking_uri: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert "make demo" in only_error(draw(name))  # nothing is registered yet
    log_comparison(register(model="vit_scratch"))
    with socket.socket() as closed:  # bound but not listening: connections are refused
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:secret@127.0.0.1:{closed.getsockname()[1]}")
        started = time.monotonic()
        page = draw(name)
        message = only_error(page)
        assert time.monotonic() - started < 20
    assert "127.0.0.1" in message
    assert "secret" not in message
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    page.button[0].click().run()
    assert not page.exception
    assert not [error for error in page.error if "127.0.0.1" in error.value]


def test_a_bug_is_one_line_and_its_traceback_goes_to_the_log(
    register: Register, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    register()
    monkeypatch.setattr(bars, "chart", lambda answers: 1 / 0)
    page = upload(open_app(), image_file(RED))
    assert "terminal" in only_error(page)
    assert "ZeroDivisionError" in caplog.text
