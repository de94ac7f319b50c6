"""`python -m gui.classify`: pictures in, answers out, an exit status that tells what happened."""

import csv
import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from gui import batch, classify, pictures, registry
from gui.archives import File
from gui.batch import AT_ONCE, COLUMNS
from gui.registry import Model, RegistryError
from tests.gui.conftest import BLUE, RED, Register, picture_file

ROOT = Path(__file__).resolve().parents[2]


class Ran(NamedTuple):
    """How the command ended, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Command = Callable[..., Ran]


@pytest.fixture
def command(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """Runs the command in this process: command("cat.png", "--top", 1, stdin="dog.png")."""

    def run(*arguments: object, stdin: str = "") -> Ran:
        monkeypatch.setattr(sys, "argv", ["classify", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as ended:
            classify.main()
        return Ran(int(ended.value.code or 0), *capsys.readouterr())

    yield run
    logging.disable(logging.NOTSET)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """A folder with a blue and a red picture, one of them in a folder of its own, and what is no picture."""
    folder = tmp_path / "album"
    (folder / "a" / ".thumbnails").mkdir(parents=True)
    (folder / "a" / "2.jpg").write_bytes(picture_file(RED, kind="JPEG"))
    (folder / "a" / ".thumbnails" / "2.png").write_bytes(picture_file())
    (folder / "1.PNG").write_bytes(picture_file(BLUE))
    (folder / "._1.png").write_bytes(b"what macOS leaves behind")
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_folders_give_a_line_of_json_for_each_picture_in_the_order_of_names(
    register: Register, command: Command, album: Path
) -> None:
    register()
    ran = command(album)
    assert ran.status == 0
    assert [line["image"] for line in ran.lines] == [str(album / "1.PNG"), str(album / "a" / "2.jpg")]
    assert [line["answers"][0]["class"] for line in ran.lines] == ["blue sea", "red apple"]
    assert ran.lines[0]["answers"][0]["superclass"] == "things & waters"
    assert [len(line["answers"]) for line in ran.lines] == [5, 5]
    assert ran.err.startswith("2 pictures classified by version 1 of cifar100-classifier")


def test_the_answers_are_those_of_the_app(register: Register, command: Command, tmp_path: Path) -> None:
    register()
    content = picture_file((100, 90, 200), size=(31, 57))
    (tmp_path / "wide.png").write_bytes(content)
    answers = command(tmp_path / "wide.png").lines[0]["answers"]
    model = registry.load(registry.connect().champions()[0])
    seen = model.prepare(pictures.load(content))
    shown = model.classified(model.probabilities(seen[np.newaxis]), 5)[0].answers
    assert [answer["class"] for answer in answers] == [answer.class_name for answer in shown]
    assert [answer["probability"] for answer in answers] == pytest.approx([a.probability for a in shown], abs=1e-6)


def test_images_that_are_not_square_follow_the_version_or_what_is_asked_for(
    register: Register, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "wide.png").write_bytes(picture_file(RED, size=(90, 30)))
    register(square="crop")
    register(square="pad")
    for model, square, expected in [
        ("cifar100-classifier@1", [], "red apple"),
        ("cifar100-classifier@2", [], "white rabbit"),
        ("cifar100-classifier@2", ["--square", "crop"], "red apple"),
        ("cifar100-classifier@1", ["--square", "pad"], "white rabbit"),
    ]:
        line = command(tmp_path / "wide.png", "--model", model, *square).lines[0]
        assert line["answers"][0]["class"] == expected
    refused = command(tmp_path / "wide.png", "--square", "stretch")
    assert refused.status == 2
    assert "argument --square: invalid choice: 'stretch' (choose from" in refused.err


def test_more_pictures_than_a_batch_keep_their_order(register: Register, command: Command, tmp_path: Path) -> None:
    register()
    colours = np.random.default_rng(0).integers(0, 2, 4 * AT_ONCE + 5)
    for index, is_red in enumerate(colours):
        (tmp_path / f"{index:03}.png").write_bytes(picture_file(RED if is_red else BLUE, size=(8 + index, 9)))
    ran = command("--top", 1, *sorted(tmp_path.glob("*.png")))
    assert [line["answers"][0]["class"] == "red apple" for line in ran.lines] == colours.astype(bool).tolist()


def test_files_that_cannot_be_read_are_listed_at_the_end_and_told_by_the_status(
    register: Register, command: Command, album: Path, tmp_path: Path
) -> None:
    register()
    (album / "a" / "1.png").write_bytes(picture_file()[:60])
    ran = command(tmp_path / "missing.png", album, album / "notes.txt")
    assert ran.status == 1
    assert len(ran.lines) == 2
    listed = ran.err.splitlines()[1:]
    assert listed[0] == "3 could not be read:"
    assert listed[1] == f"  {tmp_path / 'missing.png'}: No such file or directory"
    assert listed[2].startswith(f"  {album / 'a' / '1.png'}: This picture is damaged")
    assert listed[3].startswith(f"  {album / 'notes.txt'}: This file is no picture")


def test_a_file_larger_than_a_picture_may_be_is_not_read_to_its_end(
    register: Register, command: Command, tmp_path: Path
) -> None:
    register()
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(2**40)
    assert "more than the 32 MB" in command(tmp_path / "huge.png").err


@pytest.mark.parametrize("named", [["-"], []])
def test_stdin_lists_paths(register: Register, command: Command, album: Path, named: list[str]) -> None:
    register()
    ran = command(*named, "--top", 1, stdin=f"{album / 'a'}\n\n{album / '1.PNG'}\r\n")
    assert [line["answers"][0]["class"] for line in ran.lines] == ["red apple", "blue sea"]


def test_csv_has_a_row_for_each_answer(register: Register, command: Command, album: Path, tmp_path: Path) -> None:
    register(ood_threshold=0.0, conformal={"90": 0.99})
    ran = command(album, "--top", 2, "--csv", tmp_path / "answers.csv")
    assert (ran.status, ran.out) == (0, "")
    rows = list(csv.DictReader((tmp_path / "answers.csv").open(encoding="utf-8")))
    assert tuple(rows[0]) == COLUMNS
    assert [(Path(row["image"]).name, row["rank"]) for row in rows] == [
        ("1.PNG", "1"),
        ("1.PNG", "2"),
        ("2.jpg", "1"),
        ("2.jpg", "2"),
    ]
    assert (rows[0]["class"], rows[0]["superclass"]) == ("blue sea", "things & waters")
    assert (rows[0]["prediction_set"], rows[0]["out_of_distribution"]) == ("blue sea, black cat", "false")
    assert rows[2]["prediction_set"] == rows[3]["prediction_set"] == "red apple, yellow lemon"
    assert 0.5 < float(rows[0]["probability"]) <= 1
    assert {file.name for file in tmp_path.iterdir()} == {"album", "answers.csv", "mlflow.db", "models"}


def test_no_file_name_is_a_formula_of_a_spreadsheet(
    register: Register, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    (tmp_path / "=1+1.png").write_bytes(picture_file(RED))
    monkeypatch.chdir(tmp_path)
    ran = command("=1+1.png", "--top", 1, "--csv", "-")
    assert [row["image"] for row in csv.DictReader(io.StringIO(ran.out))] == ["'=1+1.png"]
    assert command("=1+1.png").lines[0]["image"] == "=1+1.png"


def test_a_csv_file_stays_as_it_was_where_the_model_fails(
    register: Register, command: Command, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register()

    def fail(model: Model, images: np.ndarray) -> np.ndarray:
        raise RegistryError("Version 1 failed.")

    monkeypatch.setattr(Model, "probabilities", fail)
    (tmp_path / "answers.csv").write_text("yesterday's\n")
    ran = command(album, "--csv", tmp_path / "answers.csv")
    assert (ran.status, ran.err) == (2, "classify: Version 1 failed.\n")
    assert (tmp_path / "answers.csv").read_text() == "yesterday's\n"
    assert {file.name for file in tmp_path.iterdir()} == {"album", "answers.csv", "mlflow.db", "models"}


def test_a_picture_below_the_threshold_is_out_of_distribution(
    register: Register, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "red.png").write_bytes(picture_file(RED))
    (tmp_path / "grey.png").write_bytes(picture_file((128, 128, 128)))
    register(ood_threshold=0.8)
    lines = command(tmp_path / "red.png", tmp_path / "grey.png").lines
    assert [line["out_of_distribution"] for line in lines] == [False, True]
    register(ood_threshold=None)
    assert command(tmp_path / "grey.png").lines[0]["out_of_distribution"] is None
    assert command(tmp_path / "grey.png", "--top", 1, "--csv", "-").out.splitlines()[1].endswith(",")


def test_the_prediction_set_is_a_list_of_names(register: Register, command: Command, tmp_path: Path) -> None:
    register(conformal={"90": 0.99})
    (tmp_path / "red.png").write_bytes(picture_file(RED))
    line = command(tmp_path / "red.png", "--top", 1).lines[0]
    assert list(line) == ["image", "out_of_distribution", "prediction_set", "answers"]
    assert line["prediction_set"] == ["red apple", "yellow lemon"]
    assert list(line["answers"][0]) == ["class", "superclass", "probability"]


def test_a_version_of_an_earlier_release_is_one_line(register: Register, command: Command, tmp_path: Path) -> None:
    register(without=["format"])
    (tmp_path / "red.png").write_bytes(picture_file(RED))
    ran = command(tmp_path / "red.png")
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert ran.err.startswith("classify: Version 1 of cifar100-classifier was registered by an earlier release")


def test_any_version_can_be_named(register: Register, command: Command, tmp_path: Path) -> None:
    register(class_names=["first"] * 6)
    register(class_names=["second"] * 6)
    register(name="other-classifier", class_names=["other"] * 6)
    (tmp_path / "red.png").write_bytes(picture_file(RED))
    for model, named in [
        ("cifar100-classifier", "second"),
        ("cifar100-classifier@champion", "second"),
        ("cifar100-classifier@1", "first"),
        ("models:/other-classifier/1", "other"),
    ]:
        assert command(tmp_path / "red.png", "--model", model).lines[0]["answers"][0]["class"] == named


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["red.png", "--model", "nobody"], "No model `nobody` is registered"),
        (["red.png", "--model", "cifar100-classifier@best"], "cifar100-classifier has no alias `best`"),
        (["red.png", "--model", "cifar100-classifier@7"], "cifar100-classifier has no version 7"),
        (["red.png", "--top", "7"], "--top 7: this model knows 6 classes, ask for 1 to 6"),
        (["red.png", "--top", "0"], "--top 0: this model knows 6 classes, ask for 1 to 6"),
        (["red.png", "--csv", "missing/answers.csv"], "--csv missing/answers.csv: it cannot be written"),
        (["red.png", "--csv", "empty"], "--csv empty: this is no file"),
        (["empty"], "no pictures in empty"),
        ([], "no pictures in what stdin lists"),
    ],
)
def test_a_mistake_is_one_line_and_status_two(
    register: Register,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    reason: str,
) -> None:
    register()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "red.png").write_bytes(picture_file(RED))
    ran = command(*arguments)
    assert ran.status == 2
    assert ran.out == ""
    assert ran.err.startswith(f"classify: {reason}")
    assert ran.err.count("\n") == 1


def test_no_more_than_one_batch_is_read_ahead(register: Register, tmp_path: Path) -> None:
    register()
    content = picture_file(RED)
    taken = 0

    def endless() -> Iterator[File]:
        nonlocal taken
        while True:
            taken += 1
            yield File("red.png", lambda: content)

    model = registry.load(registry.connect().champions()[0])
    results = batch.classify(model, endless(), None, 1)
    for number in range(1, 20 * AT_ONCE):
        next(results)
        assert taken <= number + 2 * AT_ONCE
    results.close()


def test_it_runs_by_itself_and_stops_when_its_reader_does(register: Register, tmp_path: Path) -> None:
    register()
    (tmp_path / "red.png").write_bytes(picture_file(RED))
    (tmp_path / "paths.txt").write_text(f"{tmp_path / 'red.png'}\n" * 2000)
    with (tmp_path / "paths.txt").open() as paths:
        process = subprocess.Popen(
            [sys.executable, "-m", "gui.classify", "-", "--top", "1"],
            cwd=ROOT,
            stdin=paths,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["answers"][0]["class"] == "red apple"
    process.stdout.close()
    _, complaints = process.communicate(timeout=300)
    assert (process.returncode, complaints) == (2, b"")
