"""`python -m gui.classify`: images in, rows out, an exit status that says what happened."""

import csv
import io
import itertools
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from gui import batch, classify, images, registry
from gui.archives import File
from gui.batch import AT_ONCE
from stages.inference.onnx_model import COLUMNS
from tests.gui.conftest import BLUE, RED, Register, champions_model, image_file, spoil


class Ran(NamedTuple):
    """How the command ended, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def best(self) -> list[str]:
        """The likeliest class of each image."""
        return [row["class"] for row in self.rows if row["rank"] == 1]


Command = Callable[..., Ran]


@pytest.fixture
def command(
    tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """Runs the command in this process, in tmp_path: command("cat.png", "--top", 1, stdin="dog.png")."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, stdin: str = "") -> Ran:
        monkeypatch.setattr(sys, "argv", ["classify", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as ended:
            classify.main()
        return Ran(int(ended.value.code or 0), *capsys.readouterr())

    yield run
    logging.disable(logging.NOTSET)


@pytest.fixture
def album(tmp_path: Path) -> str:
    """A folder with a blue and a red image, one of them in a folder of its own, and what is no image; red.png."""
    folder = tmp_path / "album"
    (folder / "a" / ".thumbnails").mkdir(parents=True)
    (folder / "a" / "2.jpg").write_bytes(image_file(RED, kind="JPEG"))
    (folder / "a" / ".thumbnails" / "2.png").write_bytes(image_file())
    (folder / "1.PNG").write_bytes(image_file(BLUE))
    (folder / "._1.png").write_bytes(b"what macOS leaves behind")
    (folder / "notes.txt").write_text("no image")
    (tmp_path / "red.png").write_bytes(image_file(RED, size=(90, 30)))
    return "album"


def test_the_rows_are_those_of_the_app_as_json_and_as_csv(register: Register, command: Command, album: str) -> None:
    register(ood={"score": "probability", "threshold": 0.0, "reason": None}, conformal={"90": 0.99})
    ran = command(album)
    assert ran.status == 0
    assert ran.err.startswith("2 images classified by version 1 of cifar100-classifier")
    model = champions_model()
    expected = []
    for name in ("album/1.PNG", "album/a/2.jpg"):
        seen = model.prepare(images.load(Path(name).read_bytes()))
        expected += [row | {"image": name} for row in model.rows(model.logits(seen[np.newaxis]), 5)[0]]
    assert ran.rows == [row | {"probability": pytest.approx(row["probability"], abs=1e-6)} for row in expected]
    assert tuple(ran.rows[0]) == COLUMNS
    assert ran.rows[0]["prediction_set"] == ["blue sea", "black cat"]

    ran = command(album, "--csv", "answers.csv")
    assert (ran.status, ran.out) == (0, "")
    rows = list(csv.DictReader(io.StringIO(Path("answers.csv").read_text(encoding="utf-8"))))
    assert tuple(rows[0]) == COLUMNS
    for row, other in zip(rows, expected, strict=True):
        assert float(row["probability"]) == pytest.approx(other["probability"], abs=1e-6)
        texts = {"rank": str(other["rank"]), "prediction_set": ", ".join(other["prediction_set"])}
        assert row == other | texts | {"probability": row["probability"], "out_of_distribution": "false"}
    assert {file.name for file in Path().iterdir()} == {"album", "red.png", "answers.csv", "mlflow.db", "models"}
    assert command(album, "--csv", "-").out == Path("answers.csv").read_text(encoding="utf-8")


def test_a_model_that_cannot_tell_images_out_of_distribution_says_why(register: Register, command: Command) -> None:
    register(ood={"score": "energy", "threshold": None, "reason": "AUROC 0.43 on far images"})
    Path("red.png").write_bytes(image_file(RED))
    ran = command("red.png")
    assert {row["out_of_distribution"] for row in ran.rows} == {None}
    assert "flags no image as out-of-distribution: AUROC 0.43 on far images" in ran.err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--model", "cifar100-classifier"], "white rabbit"),  # made square by the version's own rule
        (["--model", "cifar100-classifier@champion", "--square", "crop"], "red apple"),
        (["--model", "cifar100-classifier@1"], "red apple"),
        (["--model", "models:/cifar100-classifier/1", "--square", "pad"], "white rabbit"),
        ([], "other"),
    ],
)
def test_any_version_and_any_rule_for_squares_can_be_named(
    register: Register, command: Command, album: str, options: list[str], expected: str
) -> None:
    register(square="crop")
    register(square="pad")
    register(name="other-classifier", class_names=["other"] * 6, promoted_at="2026-02-01")
    assert command("red.png", *options).best == [expected]


def test_more_images_than_a_batch_keep_their_order_also_after_a_batch_of_broken_ones(
    register: Register, command: Command, tmp_path: Path
) -> None:
    register()
    colours = np.random.default_rng(0).integers(0, 2, 4 * AT_ONCE + 5)
    for index, is_red in enumerate(colours):
        content = b"broken" if index < AT_ONCE else image_file(RED if is_red else BLUE, size=(8 + index, 9))
        (tmp_path / f"{index:03}.png").write_bytes(content)
    ran = command("--top", 1, "--threads", 1, *sorted(tmp_path.glob("*.png")))
    assert [name == "red apple" for name in ran.best] == colours[AT_ONCE:].astype(bool).tolist()
    assert ran.err.count(": This file is no image") == AT_ONCE


def test_files_that_cannot_be_read_are_told_with_their_reasons(
    register: Register, command: Command, album: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    (tmp_path / album / "a" / "1.png").write_bytes(image_file()[:60])
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(2**40)  # more than is read
    scandir = classify.os.scandir
    closed = PermissionError(13, "Permission denied", "album/b")
    (tmp_path / album / "b").mkdir()
    monkeypatch.setattr(
        "os.scandir", lambda path: (_ for _ in ()).throw(closed) if path == "album/b" else scandir(path)
    )
    ran = command("missing.png", album, f"{album}/notes.txt", "huge.png", "a\0b.png")
    assert ran.status == 1
    assert ran.best == ["blue sea", "red apple"]
    *told, summary, total = ran.err.splitlines()
    assert [line.split(": ")[0] for line in told] == [
        *("missing.png", "album/a/1.png", "album/b", "album/notes.txt", "huge.png", "a\0b.png")
    ]
    reasons = ("No such file", "damaged", "Permission denied", "no image", "more than the 32 MB", "null byte")
    assert all(reason in line for reason, line in zip(reasons, told, strict=True))
    assert summary.startswith("2 images classified")
    assert total.startswith("6 could not be read")


@pytest.mark.parametrize("named", [["-"], []])
def test_stdin_lists_paths(register: Register, command: Command, album: str, named: list[str]) -> None:
    register()
    ran = command(*named, "--top", 1, stdin="album/a\n\nalbum/1.PNG\r\n")
    assert [row["class"] for row in ran.rows] == ["red apple", "blue sea"]


def test_a_csv_file_stays_as_it_was_where_the_model_fails(register: Register, command: Command, album: str) -> None:
    register()
    spoil(Path("models/0"), "raise ValueError(7)")
    Path("answers.csv").write_text("yesterday's\n")
    ran = command(album, "--csv", "answers.csv")
    assert ran.status == 2
    assert ran.err.startswith("classify: Version 1 of cifar100-classifier failed on this image (`ValueError: 7`)")
    assert Path("answers.csv").read_text() == "yesterday's\n"
    assert {file.name for file in Path().iterdir()} == {"album", "red.png", "answers.csv", "mlflow.db", "models"}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["red.png", "--model", "nobody"], "No model `nobody` is registered"),
        (["red.png", "--model", "cifar100-classifier@best"], "cifar100-classifier has no version `best`"),
        (["red.png", "--model", "cifar100-classifier@7"], "cifar100-classifier has no version `7`"),
        (["red.png", "--top", "7"], "top_k = 7: ask for 1 to 6 classes"),
        (["red.png", "--top", "0"], "top_k = 0: ask for 1 to 6 classes"),
        (["red.png", "--threads", "0"], "--threads 0: give 1 or more"),
        (["red.png", "--csv", "missing/answers.csv"], "--csv missing/answers.csv: it cannot be written"),
        (["red.png", "--csv", "empty"], "--csv empty: this is no file"),
        (["empty"], "no images in empty"),
        ([], "no images in what stdin lists"),
    ],
)
def test_a_mistake_is_one_line_and_status_two(
    register: Register, command: Command, album: str, tmp_path: Path, arguments: list[str], reason: str
) -> None:
    register()
    (tmp_path / "empty").mkdir()
    ran = command(*arguments)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert ran.err.startswith(f"classify: {reason}")


def test_no_more_than_one_batch_is_read_ahead(register: Register) -> None:
    register()
    content = image_file(RED)
    taken: list[int] = []
    endless = (taken.append(number) or File(number, lambda: content) for number in itertools.count())
    results = batch.classify(champions_model(), endless, None, 1)
    for number in range(1, 20 * AT_ONCE):
        next(results)
        assert len(taken) <= number + 2 * AT_ONCE
    results.close()


def test_it_runs_by_itself_and_stops_when_its_reader_does(register: Register, album: str, tmp_path: Path) -> None:
    register()
    (tmp_path / "paths.txt").write_text(f"{tmp_path / 'red.png'}\n" * 2000)
    with (tmp_path / "paths.txt").open() as paths:
        process = subprocess.Popen(
            [sys.executable, "-m", "gui.classify", "-", "--top", "1"],
            cwd=registry.REPOSITORY,
            stdin=paths,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["class"] == "red apple"
    process.stdout.close()
    _, complaints = process.communicate(timeout=300)
    assert (process.returncode, complaints) == (2, b"")
