"""Many images at once: the answers, what cannot be read, the CSV."""

import csv
import io
from pathlib import Path
from unittest.mock import Mock

import pytest
from streamlit.testing.v1 import AppTest

from gui import archives, batch
from gui.batch import Result
from stages.inference.onnx_model import COLUMNS
from tests.gui.conftest import BLUE, RED, Register, image_file, spoil
from tests.gui.pages import draw, only_error, upload
from tests.gui.test_archives import zip_of


def errors(page: AppTest) -> dict[str, str]:
    """The files without an answer, and why."""
    table = page.dataframe[-1].value
    return dict(zip(table["image"], table["error"], strict=True))


def test_files_and_archives_become_a_table_and_unreadable_ones_are_named(register: Register) -> None:
    register()
    archive = zip_of({"holiday/sea.png": image_file(BLUE), "notes.txt": b"no image"})
    files = {"apple.png": image_file(RED), "<b>.png": image_file(RED)[:60]}
    page = upload(draw("batch"), *files.items(), ("all.zip", archive), ("torn.zip", archive[:-30]))
    answered = page.dataframe[0].value
    assert list(answered["image"]) == ["apple.png", "all.zip/holiday/sea.png"]
    assert list(answered["class"]) == ["red apple", "blue sea"]
    assert list(answered["superclass"]) == ["plants", "things & waters"]
    assert 0.8 < answered["probability"].min() < answered["probability"].max() <= 1
    assert list(answered["prediction_set"]) == [["red apple"], ["blue sea"]]
    assert list(answered["out_of_distribution"]) == [False, False]
    found = errors(page)
    assert sorted(found) == ["<b>.png", "all.zip/notes.txt", "torn.zip"]
    assert len(set(found.values())) == 3  # each has its own
    assert "damaged" in found["<b>.png"]
    assert "**2** of 5" in page.markdown[0].value
    assert len(page.download_button) == 1


def test_the_csv_holds_every_file_with_answer_or_error() -> None:
    values = ("a, b.png", 1, "maple tree", "trees", 0.51234567, ["maple tree", "oak tree"], True)
    row = dict(zip(COLUMNS, values, strict=True))
    other = row | {"image": "-2.png", "out_of_distribution": None}
    text = io.StringIO()
    results = [Result("a, b.png", [row]), Result("-2.png", [other]), Result("=1+1.png", error="It is empty.")]
    batch.write_csv(results, text, errors=True)
    head, first, second, third = csv.reader(io.StringIO(text.getvalue()))
    assert head == [*COLUMNS, "error"]
    assert first == ["a, b.png", "1", "maple tree", "trees", "0.512346", "maple tree, oak tree", "true", ""]
    assert (second[0], second[-2:]) == ("'-2.png", ["", ""])
    assert third == ["'=1+1.png", *[""] * 6, "It is empty."]  # text, not a formula


def test_a_model_that_fails_on_one_image_stops_nothing_on_all_is_one_line(register: Register, tmp_path: Path) -> None:
    register()
    spoil(tmp_path / "models" / "0", "if (images[..., 2] > 200).any(): raise ValueError('too blue')")
    colours = [BLUE if number in (1, batch.AT_ONCE) else RED for number in range(batch.AT_ONCE + 1)]
    page = upload(draw("batch"), *((f"{number}.png", image_file(each)) for number, each in enumerate(colours)))
    assert not page.error
    assert len(page.dataframe[0].value) == batch.AT_ONCE - 1
    found = errors(page)
    assert set(found) == {"1.png", f"{batch.AT_ONCE}.png"}
    assert all("too blue" in error for error in found.values())
    assert "too blue" in only_error(upload(page, image_file(BLUE)))


def test_a_rerun_classifies_nothing_again(register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    register()
    classify = Mock(wraps=batch.classify)
    monkeypatch.setattr(batch, "classify", classify)
    page = upload(draw("batch"), image_file(RED))
    page.run()
    assert classify.call_count == 1
    assert len(page.dataframe) == 1
    page.radio[0].set_value("pad").run()
    assert classify.call_count == 2
    register(class_names=["tomato", "pea", "sky", "snow", "coal", "sun"])
    assert list(page.run().dataframe[0].value["class"]) == ["tomato"]


def test_no_files_and_too_many_are_results_too(register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    register(ood={"score": "energy", "threshold": None, "reason": "AUROC 0.43 on far images"})
    page = upload(draw("batch"), ("empty.zip", zip_of({})))
    assert "**0** of 0" in page.markdown[0].value
    assert not page.dataframe
    monkeypatch.setattr(archives, "MAX_ENTRIES", 2)
    page = upload(draw("batch"), *((f"{number}.png", image_file(RED)) for number in range(3)))
    assert list(page.dataframe[0].value["image"]) == ["0.png", "1.png"]
    assert list(errors(page)) == ["2.png"]
