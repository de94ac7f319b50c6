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
from gui.batch import COLUMNS, Result
from gui.registry import Answer, Classified, Model
from tests.gui.conftest import BLUE, RED, Register, as_file, picture_file, spoil
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
    assert list(answered["image"]) == ["apple.png", "all.zip/holiday/sea.png"]
    assert list(answered["class"]) == ["red apple", "blue sea"]
    assert list(answered["superclass"]) == ["plants", "things & waters"]
    assert 80 < answered["probability"].min() < answered["probability"].max() <= 100  # per cent
    assert list(answered["prediction_set"]) == ["red apple", "blue sea"]
    assert list(answered["out_of_distribution"]) == [False, False]
    unread = dict(re.findall("<li><b>(.*?)</b>: (.*?)</li>", html(page)))
    assert sorted(unread) == ["all.zip/notes.txt", "broken.png", "torn.zip"]
    assert "no picture that can be read" in unread["all.zip/notes.txt"]
    assert "damaged" in unread["broken.png"]
    assert "This ZIP file is damaged" in unread["torn.zip"]
    assert "**2** of 5 files classified" in page.markdown[0].value
    assert "3 could not be read" in page.warning[0].value
    assert page.download_button[0].label == "All of it as CSV"


def test_the_csv_holds_every_file_with_answer_or_problem() -> None:
    answer = Classified([Answer("maple tree", "trees", 0.51234567)], ["maple tree", "oak tree"], False)
    results = [
        Result("a, b.png", answer),
        Result("=1+1.png", error="This file is empty: choose another one."),
        Result("c.png", answer._replace(out_of_distribution=True)),
        Result("d.png", answer._replace(out_of_distribution=None)),
    ]
    text = io.StringIO()
    batch.write_csv(results, text, errors=True)
    first, second, *others = rows_of(text.getvalue())
    assert tuple(first) == (*COLUMNS, "error")
    assert tuple(first.values()) == (
        *("a, b.png", "1", "maple tree", "trees", "0.512346", "maple tree, oak tree", "false"),
        "",
    )
    assert second.pop("image") == "'=1+1.png"  # text, not a formula
    assert second.pop("error").startswith("This file is empty")
    assert set(second.values()) == {""}
    assert [row["out_of_distribution"] for row in others] == ["true", ""]


@pytest.fixture
def model(register: Register) -> Model:
    register()
    return registry.load(registry.connect().champions()[0])


def test_a_picture_gets_the_same_answer_alone_and_among_many(model: Model) -> None:
    rng = np.random.default_rng(0)
    contents = [picture_file(tuple(int(c) for c in rng.integers(0, 256, 3)), (40 + number, 40)) for number in range(40)]
    files = [File(f"{number}.png", partial(bytes, content)) for number, content in enumerate(contents)]
    files.insert(7, File("broken.png", lambda: b"broken"))
    results = list(batch.classify(model, files, "crop", 1))
    assert [result.image for result in results] == [file.name for file in files]
    assert [result.image for result in results if result.error] == ["broken.png"]
    for result, content in zip([result for result in results if not result.error], contents, strict=True):
        seen = model.prepare(pictures.load(content), "crop")
        alone = model.classified(model.probabilities(seen[np.newaxis]), 1)[0]
        assert result.answer is not None
        assert result.answer.answers[0].class_name == alone.answers[0].class_name
        assert result.answer.answers[0].probability == pytest.approx(alone.answers[0].probability, abs=1e-6)
        assert result.answer.prediction_set == alone.prediction_set


def test_a_group_of_nothing_but_broken_files_stops_nothing(model: Model) -> None:
    files = [File(f"{number}.png", lambda: b"broken") for number in range(batch.AT_ONCE)]
    files.append(File("red.png", lambda: picture_file(RED)))
    results = list(batch.classify(model, files, "pad", 1))
    assert sum(bool(result.error) for result in results) == batch.AT_ONCE
    assert batch.records(results[-1])[0]["class"] == "red apple"


def test_one_picture_that_the_model_fails_on_stops_nothing(register: Register, tmp_path: Path) -> None:
    register()
    spoil(tmp_path / "models" / "0", "if (images[..., 2] > 200).any(): raise ValueError('too blue')")
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
    monkeypatch.setattr(batch, "classify", lambda *given, **named: classified.append(1) or classify(*given, **named))
    page = upload(draw("batch"), png("apple.png", RED))
    assert len(classified) == 1
    page.run()
    assert len(classified) == 1
    assert len(page.dataframe) == 1
    page.radio[0].set_value("pad").run()
    assert len(classified) == 2
    register(class_names=["tomato", "pea", "sky", "snow", "coal", "sun"])
    assert list(page.run().dataframe[0].value["class"]) == ["tomato"]


def test_too_many_files_are_named_as_left_out(register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    register()
    monkeypatch.setattr(archives, "MAX_ENTRIES", 2)
    page = upload(draw("batch"), *(png(f"{number}.png", RED) for number in range(3)))
    assert list(page.dataframe[0].value["image"]) == ["0.png", "1.png"]
    assert "<b>2.png</b>: Only 2 pictures are taken at once." in html(page)


def test_names_of_files_are_text_not_markup(register: Register) -> None:
    register()
    page = upload(draw("batch"), ("<script>alert(1)</script>.png", b"broken", "image/png"))
    assert "<script>" not in html(page)
    assert "&lt;script&gt;" in html(page)


def test_a_model_that_fails_is_one_sentence(register: Register, tmp_path: Path) -> None:
    register()
    spoil(tmp_path / "models" / "0", "raise ValueError('no such layer')")
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
