"""Many pictures at once: the answers, what cannot be read, the CSV."""

import csv
import io
import re
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from gui import archives, batch, pictures, registry
from gui.archives import File
from gui.batch import Row
from gui.registry import Model
from tests.gui.conftest import BLUE, RED, Register, as_file, picture_file
from tests.gui.pages import draw, html, only_error
from tests.gui.test_archives import zip_of

Upload = tuple[str, bytes, str]


def upload(page: AppTest, *files: Upload) -> AppTest:
    page.file_uploader[0].set_value(list(files)).run()
    assert not page.exception
    return page


def png(name: str, colour: tuple[int, int, int]) -> Upload:
    return name, picture_file(colour), "image/png"


def rows_of(csv_text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_text)))


def test_files_and_archives_become_a_table_and_unreadable_ones_are_named(register: Register) -> None:
    register()
    archive = zip_of({"holiday/sea.png": picture_file(BLUE), "notes.txt": b"no picture"})
    page = upload(
        draw("batch"),
        png("apple.png", RED),
        ("broken.png", picture_file(RED)[:60], "image/png"),
        ("all.zip", archive, "application/zip"),
        ("torn.zip", archive[:-30], "application/zip"),
    )
    answered = page.dataframe[0].value
    assert list(answered["file"]) == ["apple.png", "all.zip/holiday/sea.png"]
    assert list(answered["class_name"]) == ["red apple", "blue sea"]
    assert list(answered["superclass_name"]) == ["plants", "things & waters"]
    assert 80 < answered["confidence"].min() < answered["confidence"].max() <= 100  # per cent
    assert list(answered["strange"]) == [False, False]
    unread = dict(re.findall("<li><b>(.*?)</b>: (.*?)</li>", html(page)))
    assert sorted(unread) == ["all.zip/notes.txt", "broken.png", "torn.zip"]
    assert "no picture that can be read" in unread["all.zip/notes.txt"]
    assert "damaged" in unread["broken.png"]
    assert "This ZIP file is damaged" in unread["torn.zip"]
    assert "**2** of 5 files classified" in page.markdown[0].value
    assert "3 could not be read" in page.warning[0].value
    assert page.download_button[0].label == "All of it as CSV"


def test_the_csv_holds_every_file_with_answer_or_problem() -> None:
    rows = [
        Row("a, b.png", "maple tree", "trees", 0.51234, "maple tree, oak tree", False),
        Row("=1+1.png", problem="This file is empty: choose another one."),
    ]
    first, second = rows_of(batch.as_csv(rows))
    assert first["file"] == "a, b.png"
    assert first["likely"] == "maple tree, oak tree"
    assert first["confidence"] == "0.5123"
    assert first["strange"] == "False"
    assert second["file"] == "'=1+1.png"  # text, not a formula
    assert second["problem"].startswith("This file is empty")
    assert second["confidence"] == second["strange"] == ""


@pytest.fixture
def model(register: Register) -> Model:
    register()
    return registry.load(registry.connect().champions()[0])


def test_a_picture_gets_the_same_answer_alone_and_among_many(model: Model) -> None:
    rng = np.random.default_rng(0)
    contents = [picture_file(tuple(int(c) for c in rng.integers(0, 256, 3)), (40 + number, 40)) for number in range(40)]
    files = [File(f"{number}.png", partial(bytes, content)) for number, content in enumerate(contents)]
    files.insert(7, File("broken.png", lambda: b"broken"))
    rows = list(batch.classify(model, files, "crop"))
    assert [row.file for row in rows] == [file.name for file in files]
    assert [row.file for row in rows if row.problem] == ["broken.png"]
    for row, content in zip([row for row in rows if not row.problem], contents, strict=True):
        square = pictures.square(pictures.load(content), "crop")
        (alone,) = model.answers(model.probabilities(square[np.newaxis])[0], 1)
        assert row.class_name == alone.class_name
        assert row.confidence == pytest.approx(alone.confidence, abs=1e-6)


def test_a_group_of_nothing_but_broken_files_stops_nothing(model: Model) -> None:
    files = [File(f"{number}.png", lambda: b"broken") for number in range(batch.AT_ONCE)]
    files.append(File("red.png", lambda: picture_file(RED)))
    rows = list(batch.classify(model, files, "pad"))
    assert sum(bool(row.problem) for row in rows) == batch.AT_ONCE
    assert rows[-1].class_name == "red apple"


def test_one_picture_that_the_model_fails_on_stops_nothing(register: Register, tmp_path: Path) -> None:
    register()
    code = tmp_path / "models" / "0" / "colour_model.py"
    fails = "if (means[:, 2] > 200).any():\n            raise ValueError('too blue')\n        logits ="
    code.write_text(code.read_text().replace("logits =", fails, 1))
    names = [png(f"{number}.png", BLUE if number in (1, batch.AT_ONCE) else RED) for number in range(batch.AT_ONCE + 1)]
    page = upload(draw("batch"), *names)
    assert not page.error
    assert len(page.dataframe[0].value) == batch.AT_ONCE - 1
    unread = dict(re.findall("<li><b>(.*?)</b>: (.*?)</li>", html(page)))
    assert set(unread) == {"1.png", f"{batch.AT_ONCE}.png"}
    assert all("too blue" in problem for problem in unread.values())


def test_the_progress_rises_to_the_end(register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    register()
    told: list[float] = []

    class Bar:
        def __init__(self, share: float, text: str) -> None:
            self.progress(share, text)

        def progress(self, share: float, text: str) -> None:
            told.append(share)

        def empty(self) -> None:
            told.append(-1)

    page = draw("batch")
    monkeypatch.setattr("streamlit.progress", Bar)
    upload(page, *(png(f"{number}.png", RED) for number in range(2 * batch.AT_ONCE + 1)))
    *shares, gone = told
    assert shares == sorted(shares)
    assert (shares[0], shares[-1], gone) == (0, 1, -1)
    assert len(shares) == 4


def test_an_archive_without_pictures_says_so(register: Register) -> None:
    register()
    page = upload(draw("batch"), ("empty.zip", zip_of({}), "application/zip"))
    assert "no picture in this" in page.info[0].value
    assert not page.dataframe


def test_a_second_look_classifies_nothing_again(register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    register()
    classified = []
    classify = batch.classify
    monkeypatch.setattr(batch, "classify", lambda *given: classified.append(1) or classify(*given))
    page = upload(draw("batch"), png("apple.png", RED))
    assert len(classified) == 1
    page.run()
    assert len(classified) == 1
    assert len(page.dataframe) == 1
    page.radio[0].set_value("pad").run()
    assert len(classified) == 2
    register(class_names=["tomato", "pea", "sky", "snow", "coal", "sun"])
    assert list(page.run().dataframe[0].value["class_name"]) == ["tomato"]


def test_too_many_files_are_named_as_left_out(register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    register()
    monkeypatch.setattr(archives, "MAX_ENTRIES", 2)
    page = upload(draw("batch"), *(png(f"{number}.png", RED) for number in range(3)))
    assert list(page.dataframe[0].value["file"]) == ["0.png", "1.png"]
    assert "<b>2.png</b>: Only 2 pictures are taken at once." in html(page)


def test_names_of_files_are_text_not_markup(register: Register) -> None:
    register()
    page = upload(draw("batch"), ("<script>alert(1)</script>.png", b"broken", "image/png"))
    assert "<script>" not in html(page)
    assert "&lt;script&gt;" in html(page)


def test_a_model_that_fails_is_one_sentence(register: Register, tmp_path: Path) -> None:
    register()
    code = tmp_path / "models" / "0" / "colour_model.py"
    code.write_text(code.read_text().replace("means = self", "raise ValueError('no such layer')\n        means = self"))
    assert "no such layer" in only_error(upload(draw("batch"), png("apple.png", RED)))


def test_nothing_of_an_upload_is_written_anywhere(
    register: Register, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    page = upload(draw("batch"), png("first.png", BLUE))  # whatever loading a model leaves behind is there now
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    before = {file for file in tmp_path.rglob("*") if not file.name.startswith("mlflow.db")}
    large = as_file(Image.effect_noise((900, 900), 80).convert("RGB"), "BMP")
    upload(page, png("apple.png", RED), ("all.zip", zip_of({"large.bmp": large}), "application/zip"))
    assert len(page.dataframe[0].value) == 2
    assert {file for file in tmp_path.rglob("*") if not file.name.startswith("mlflow.db")} == before
