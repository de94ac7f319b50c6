"""The page as Streamlit draws it, with real registries and small real models."""

import asyncio
import gc
import os
import re
import shutil
import socket
import time
import tomllib
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from tempfile import SpooledTemporaryFile

import mlflow
import pytest
from mlflow import MlflowClient
from PIL import Image
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartParser
from streamlit.testing.v1 import AppTest

from gui import archives, bars, comparison, pictures, registry, saliency, samples, words
from gui.registry import Answer
from gui.views import classify
from tests.gui.conftest import BLUE, RED, LogComparison, Register, as_file, picture_file, spoil

APP = Path(__file__).resolve().parents[2] / "gui" / "app.py"


def open_page() -> AppTest:
    page = AppTest.from_file(APP, default_timeout=60).run()
    assert not page.exception
    return page


def upload(page: AppTest, content: bytes, name: str = "picture.png") -> AppTest:
    page.file_uploader[0].set_value((name, content, "image/png")).run()
    assert not page.exception
    return page


def answers(page: AppTest) -> list[tuple[str, str, str]]:
    """Class, superclass and probability of each bar, top first."""
    charts = [element.proto.body for element in page.get("html") if "answers" in element.proto.body]
    assert len(charts) <= 1
    row = '<li><span>(.*?) <span class="superclass">(.*?)</span></span><span class="probability">(.*?)</span>'
    return [tuple(map(unescape, found)) for chart in charts for found in re.findall(row, chart)]


def charts(page: AppTest) -> list[str]:
    """The HTML of every answer on the page."""
    return [element.proto.body for element in page.get("html") if '<ol class="answers">' in element.proto.body]


def pick_source(page: AppTest, source: str) -> AppTest:
    """Upload, camera or test pictures."""
    page.segmented_control[0].set_value(source).run()
    assert not page.exception
    return page


def only_error(page: AppTest) -> str:
    """The one sentence that the page shows instead of an answer."""
    assert not answers(page)
    assert len(page.error) == 1
    assert "\n" not in page.error[0].value
    assert "Traceback" not in page.error[0].value
    return page.error[0].value


def test_the_champion_names_what_is_in_an_uploaded_picture(register: Register) -> None:
    register(model="vit_scratch")
    page = open_page()
    assert not answers(page)
    page = upload(page, picture_file(RED))
    assert len(answers(page)) == 5
    assert answers(page)[0][0] == "red apple"
    assert answers(page)[0][1] == "plants"
    assert answers(page)[2][1] in ("animals", "things & waters")
    shares = [float(answer[2].split("\N{NARROW NO-BREAK SPACE}")[0]) for answer in answers(page)]
    assert shares == sorted(shares, reverse=True)
    assert 90 < shares[0] < sum(shares) <= 100.3


def test_it_says_which_model_answers_and_how_often_that_is_right(register: Register) -> None:
    register(champion=False)
    register(model="vit_scratch")
    introduction = open_page().caption[0].value
    assert "cifar100-classifier" in introduction
    assert "version 2 (champion, vit_scratch)" in introduction
    assert "knows 6 things" in introduction
    assert "64.0" in introduction


def test_a_model_without_test_metrics_is_no_problem(register: Register) -> None:
    register(without=["metrics"])
    assert "right on" not in open_page().caption[0].value


def test_it_shows_the_picture_and_what_the_model_sees_with_alternative_texts(register: Register) -> None:
    register()
    page = upload(open_page(), picture_file(RED, (300, 200)))
    images = [image.proto.imgs[0] for image in page.image]
    assert [image.alt for image in images] == [
        "The uploaded picture",
        "The same picture as a square of 8 by 8 pixels, enlarged",
    ]
    assert "8 by 8 pixels" in page.caption[2].value


def test_the_user_chooses_whether_the_model_sees_the_centre_or_all(register: Register) -> None:
    register()
    image = Image.new("RGB", (90, 30), BLUE)
    image.paste(RED, (30, 0, 60, 30))
    page = upload(open_page(), as_file(image))
    assert answers(page)[0][0] == "red apple"
    page.radio[0].set_value("pad").run()
    assert answers(page)[0][0] == "white rabbit"


def test_the_choice_of_the_square_begins_with_the_versions_own_rule(register: Register) -> None:
    register(square="pad")
    page = upload(open_page(), picture_file(RED, (90, 30)))
    assert page.radio[0].value == "pad"
    assert answers(page)[0][0] == "white rabbit"


def test_without_a_database_it_says_how_to_make_a_model_and_creates_none(
    tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/nowhere.db")
    message = only_error(open_page())
    assert "No model is registered yet" in message
    assert "dvc repro" in message
    assert "make demo" in message
    assert not (tmp_path / "nowhere.db").exists()


def test_with_an_empty_registry_it_says_how_to_make_a_model(tracking_uri: str) -> None:
    message = only_error(open_page())
    assert "No model is registered yet" in message
    assert "make demo" in message


def test_a_model_without_champion_is_named(register: Register) -> None:
    register(champion=False)
    assert "No version of cifar100-classifier is champion: `make register`" in only_error(open_page())


def test_a_server_that_is_down_is_one_sentence_and_trying_again_helps(
    register: Register, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    with socket.socket() as closed:  # bound but not listening: connections are refused
        closed.bind(("127.0.0.1", 0))
        address = f"http://someone:secret@127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        started = time.monotonic()
        page = upload(open_page(), picture_file(RED))
        message = only_error(page)
        assert time.monotonic() - started < 20
    assert "does not answer" in message
    assert "127.0.0.1" in message
    assert "no connection" in message
    assert "secret" not in message
    assert "MLFLOW_TRACKING_URI" in message
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    page.button[0].click().run()
    assert answers(page)[0][0] == "red apple"


def test_a_file_that_is_no_database_is_one_sentence(tracking_uri: str, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is no database" * 100)
    assert "does not answer" in only_error(open_page())


def test_a_model_whose_files_are_gone_is_one_sentence(register: Register, tmp_path: Path) -> None:
    register()
    shutil.rmtree(tmp_path / "models")
    message = only_error(open_page())
    assert "Version 1 of cifar100-classifier does not load" in message
    assert "make register" in message


def test_a_model_whose_libraries_are_missing_is_one_sentence(register: Register, tmp_path: Path) -> None:
    register()
    code = tmp_path / "models" / "0" / "onnx_model.py"
    code.write_text("import a_runtime_that_is_not_here\n" + code.read_text())
    message = only_error(open_page())
    assert "a_runtime_that_is_not_here" in message
    assert "requirements-serve.txt" in message


class Pickled(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input


@pytest.mark.filterwarnings("ignore")
def test_a_pickled_model_is_never_loaded(register: Register) -> None:
    register(code=Pickled())
    assert "pickle is disallowed" in only_error(open_page())
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


@pytest.mark.parametrize("missing", ["class_names", "superclass_of_class", "square"])
def test_a_model_of_another_kind_is_one_sentence(register: Register, missing: str) -> None:
    register(without=[missing])
    message = only_error(open_page())
    assert missing in message
    assert "make register" in message


def test_a_version_of_an_earlier_release_is_one_sentence(register: Register) -> None:
    register(without=["format"])
    message = only_error(open_page())
    assert "Version 1 of cifar100-classifier was registered by an earlier release of this project" in message
    assert "make register" in message


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("raise ValueError('no such layer')", "no such layer"),
        ("return np.full((1, 6), np.nan, np.float32)", "gave no probabilities"),
        ("return np.zeros((1, 5), np.float32)", "gave no probabilities"),
    ],
)
def test_a_model_that_fails_on_a_picture_is_one_sentence(
    register: Register, tmp_path: Path, fault: str, expected: str
) -> None:
    register()
    spoil(tmp_path / "models" / "0", fault)
    assert expected in only_error(upload(open_page(), picture_file(RED)))


def test_a_file_that_is_no_picture_is_one_sentence_and_the_next_one_works(register: Register) -> None:
    register()
    page = upload(open_page(), b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    assert not answers(page)
    assert [warning.value for warning in page.warning] == [
        "This file is a web page or an SVG drawing, whatever its name says: save it as PNG or JPEG."
    ]
    page = upload(page, picture_file(BLUE))
    assert answers(page)[0][0] == "blue sea"
    assert not page.warning


def test_of_several_models_the_one_promoted_last_answers_and_the_others_can_be_chosen(register: Register) -> None:
    register("garden-classifier", promoted_at="2026-03-01T00:00:00+00:00")
    register("zoo-classifier", promoted_at="2026-03-02T00:00:00+02:00")  # 22:00 on the first of March in UTC
    register("attic-classifier", promoted_at="2026-03-01T20:00:00-05:00")  # 01:00 on the second: the last of all
    register("cellar-classifier", promoted_at="no date")
    page = open_page()
    assert page.selectbox[0].options == ["attic-classifier", "zoo-classifier", "garden-classifier", "cellar-classifier"]
    assert "attic-classifier" in page.caption[0].value
    page.selectbox[0].set_value("garden-classifier").run()
    assert "garden-classifier" in page.caption[0].value


def test_model_name_decides_which_model_answers(register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    register("garden-classifier")
    register("zoo-classifier")
    monkeypatch.setenv("MODEL_NAME", "garden-classifier")
    page = open_page()
    assert not page.selectbox
    assert "garden-classifier" in page.caption[0].value
    monkeypatch.setenv("MODEL_NAME", "moon-classifier")
    message = only_error(page.run())
    assert "moon-classifier" in message
    assert "garden-classifier, zoo-classifier" in message or "zoo-classifier, garden-classifier" in message


def test_a_new_champion_answers_at_the_next_interaction(register: Register) -> None:
    register()
    page = upload(open_page(), picture_file(RED))
    assert answers(page)[0][0] == "red apple"
    assert not page.toast
    register(class_names=["tomato", "pea", "sky", "snow", "coal", "sun"])
    page.radio[0].set_value("pad").run()
    assert answers(page)[0][0] == "tomato"
    assert "version 2" in page.caption[0].value
    assert "version 2 of cifar100-classifier" in page.toast[0].value
    assert not page.run().toast


def test_a_version_is_loaded_once_for_all_sessions(register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda version: loaded.append(version.number) or load(version))
    register()
    upload(open_page(), picture_file(RED)).run()
    open_page()
    assert loaded == [1]
    register()
    open_page()
    assert loaded == [1, 2]


def test_a_registry_made_anew_is_not_answered_from_memory(register: Register, tracking_uri: str) -> None:
    register()
    page = upload(open_page(), picture_file(RED))
    MlflowClient(tracking_uri=tracking_uri).delete_registered_model("cifar100-classifier")
    assert register(class_names=["tomato", "pea", "sky", "snow", "coal", "sun"]) == 1
    assert answers(page.run())[0][0] == "tomato"


def test_of_several_files_the_last_is_shown_and_the_others_can_be_chosen(register: Register) -> None:
    register()
    page = open_page()
    files = [("red.png", picture_file(RED), "image/png"), ("blue.png", picture_file(BLUE), "image/png")]
    page.file_uploader[0].set_value(files).run()
    assert answers(page)[0][0] == "blue sea"
    page.pills[0].set_value(0).run()
    assert answers(page)[0][0] == "red apple"
    page.file_uploader[0].set_value([*files, ("broken.png", b"x", "image/png")]).run()
    assert "no picture" in page.warning[0].value
    page.pills[0].set_value(1).run()
    assert answers(page)[0][0] == "blue sea"


def test_of_very_many_files_the_last_ones_can_be_chosen(register: Register) -> None:
    register()
    page = open_page()
    page.file_uploader[0].set_value([(f"{i}.png", picture_file(RED), "image/png") for i in range(25)]).run()
    assert len(page.pills[0].options) == classify.MAX_FILES
    assert any("The last 20 of 25 pictures" in caption.value for caption in page.caption)


def test_the_camera_is_asked_for_only_when_it_is_chosen(register: Register) -> None:
    register()
    page = open_page()
    assert not page.camera_input
    page = pick_source(page, "camera")
    assert not page.file_uploader
    page.camera_input[0].set_value(("photograph.jpg", picture_file(BLUE, kind="JPEG"), "image/jpeg")).run()
    assert answers(page)[0][0] == "blue sea"


def test_a_click_on_a_test_picture_classifies_it_and_says_what_it_is(
    register: Register, log_comparison: LogComparison
) -> None:
    run_id = log_comparison(register())
    page = pick_source(open_page(), "sample")
    pictures_there = [button for button in page.button if button.label.startswith("![")]
    assert len(pictures_there) == samples.SHOWN
    assert not answers(page)
    pictures_there[3].click().run()
    assert not page.exception
    explorer = comparison.of(registry.connect().champions()[0]).explorer()
    index = samples.drawn(len(explorer.images), 0)[3]
    told = charts(page)[0]
    truth = explorer.class_names[explorer.labels[index]]
    assert f"the picture is filed as <b>{truth}</b>" in told
    assert told.count("Right" if answers(page)[0][0] == truth else "Wrong") == 1
    assert run_id in str(registry.connect().champions()[0].tags)
    next(button for button in page.button if button.label == "Other pictures").click().run()
    others = [button.label for button in page.button if button.label.startswith("![")]
    assert others != [button.label for button in pictures_there]
    assert answers(page)


def test_without_test_pictures_it_says_so_and_uploads_still_work(register: Register) -> None:
    register()
    page = pick_source(open_page(), "sample")
    assert not page.error
    assert "No comparison was logged" in page.warning[0].value
    assert "make register" in page.warning[0].value
    assert answers(upload(pick_source(page, "upload"), picture_file(RED)))[0][0] == "red apple"


def test_it_says_in_words_which_classes_are_likely(register: Register) -> None:
    register(conformal={"90": 0.0})
    page = upload(open_page(), picture_file(RED))
    assert "% prediction set: <b>red apple</b>." in charts(page)[0]
    assert "9 times in 10" in charts(page)[0]
    register(conformal={"90": 0.9})
    upload(page, picture_file((140, 140, 30)))
    assert re.search("% prediction set: <b>yellow lemon, green leaf.*</b>", charts(page)[0])


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (1, ": <b>class 0</b>."),
        (8, ": <b>class 0, class 1, class 2, class 3, class 4, class 5, class 6, class 7</b>."),
        (9, ": 9 classes, <b>class 0, class 1, class 2, class 3, class 4</b> and 4 more."),
        (50, ": 50 classes, <b>class 0, class 1, class 2, class 3, class 4</b> and 45 more."),
        (51, ": 51 of 100 classes, which says next to nothing."),
    ],
)
def test_a_set_of_any_size_is_a_sentence(count: int, said: str) -> None:
    names = [f"class {number}" for number in range(count)]
    assert words.prediction_set(names, 100) == f"90\N{NARROW NO-BREAK SPACE}% prediction set{said}"


@pytest.mark.parametrize(
    ("metrics", "said"), [({"unfamiliar": {"flagged_test": 0.0}}, "0.0"), ({}, "is meant to flag 5")]
)
def test_a_warning_says_what_was_measured_or_meant(register: Register, metrics: dict, said: str) -> None:
    register(metrics=metrics)
    page = upload(open_page(), picture_file((128, 128, 128)))
    assert said in page.warning[0].value.rpartition("may mean nothing.")[2]


def test_a_picture_out_of_distribution_gets_a_warning_with_its_numbers(register: Register) -> None:
    register(metrics={"unfamiliar": {"flagged_test": 0.0471}})
    grey = picture_file((128, 128, 128))
    page = upload(open_page(), grey)
    warning = page.warning[0].value
    assert "out of distribution" in warning
    assert "threshold of 40.0" in warning
    assert "4.7" in warning  # how often it errs
    assert answers(page)[0][2].split("\N{NARROW NO-BREAK SPACE}")[0] in warning
    assert not upload(page, picture_file(RED)).warning
    register(ood_threshold=None)
    assert not upload(page, grey).warning


def test_other_versions_than_the_champion_can_be_chosen(register: Register) -> None:
    register(model="vit_scratch", alias="vit_scratch")
    others = ["tomato", "pea", "sky", "snow", "coal", "sun"]
    register(model="mobilenet_transfer", alias="mobilenet_transfer", champion=False, class_names=others)
    register(champion=False)  # without an alias: not offered
    page = upload(open_page(), picture_file(RED))
    assert page.selectbox[0].options == ["vit_scratch (champion, version 1)", "mobilenet_transfer (version 2)"]
    assert answers(page)[0][0] == "red apple"
    page.selectbox[0].set_value("mobilenet_transfer").run()
    assert answers(page)[0][0] == "tomato"
    assert "version 2 (mobilenet_transfer)" in page.caption[0].value
    assert not page.toast
    register(model="vit_scratch", alias="vit_scratch")
    page.run()
    assert answers(page)[0][0] == "tomato"  # what was chosen stays
    assert "version 4" in page.toast[0].value


def test_one_click_asks_all_models_and_a_broken_one_leaves_the_others_alone(register: Register, tmp_path: Path) -> None:
    register(model="vit_scratch", alias="vit_scratch")
    register(model="vit_transfer", alias="vit_transfer", champion=False)
    register(model="mobilenet_transfer", alias="mobilenet_transfer", champion=False)
    shutil.rmtree(tmp_path / "models" / "1")
    page = upload(open_page(), picture_file(RED))
    assert len(charts(page)) == 1
    next(toggle for toggle in page.toggle if "All 3 models" in toggle.label).set_value(True).run()
    assert not page.exception
    assert len(charts(page)) == 3  # the answer, and two of three beside one another
    assert all("red apple" in chart for chart in charts(page))
    assert "Version 2 of cifar100-classifier does not load" in page.error[0].value
    assert len(page.error) == 1
    upload(page, picture_file((128, 128, 128)))
    assert all("threshold of 40.0" in chart for chart in charts(page)[1:]), "each says that it is one, and why"


def test_why_shows_an_overlay_and_is_worked_out_once_for_a_picture(
    register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    asked = []
    occlusion = saliency.occlusion
    monkeypatch.setattr(saliency, "occlusion", lambda *given: asked.append(given) or occlusion(*given))
    page = upload(open_page(), picture_file(RED))
    assert len(page.image) == 2
    assert not asked
    page.toggle[0].set_value(True).run()
    assert not page.exception
    assert page.image[2].proto.imgs[0].alt.startswith("What the answer red apple rests on")
    assert len(asked) == 1
    page.run()
    assert len(asked) == 1
    upload(page, picture_file(BLUE))
    assert len(asked) == 2
    register()
    page.run()
    assert len(asked) == 3  # another version has other reasons


def test_a_bug_in_a_page_is_one_sentence_and_goes_to_the_log(
    register: Register, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    register()
    monkeypatch.setattr(bars, "chart", lambda answers: 1 / 0)
    message = only_error(upload(open_page(), picture_file(RED)))
    assert "reload the page" in message
    assert "ZeroDivisionError" in caplog.text


def test_a_demo_model_says_that_it_knows_generated_pictures_only(register: Register) -> None:
    register()
    assert not open_page().info
    register("demo-classifier", promoted_at="2026-12-01T00:00:00+00:00")
    assert "generated pictures" in open_page().info[0].value


def test_uploads_within_the_limit_never_go_through_a_file(register: Register) -> None:
    register()
    page = open_page()
    assert page.file_uploader[0].proto.max_upload_size_mb == pictures.MAX_MEGABYTES
    assert archives.MAX_ARCHIVE_MEGABYTES >= pictures.MAX_MEGABYTES
    file = asyncio.run(_received(3 * 2**20))
    assert file.size == 3 * 2**20
    assert isinstance(file.file, SpooledTemporaryFile)
    assert not file.file._rolled, "it lies on the disk"
    configuration = tomllib.loads((APP.parent / ".streamlit" / "config.toml").read_text())
    assert configuration["server"]["maxUploadSize"] == archives.MAX_ARCHIVE_MEGABYTES


def test_what_was_loaded_is_left_out_of_the_search_for_garbage_after_every_interaction(register: Register) -> None:
    gc.unfreeze()
    register()
    open_page()
    assert gc.get_freeze_count() > 10 * len(gc.get_objects())
    assert gc.get_threshold()[0] > 10_000
    gc.unfreeze()


async def _received(size: int) -> UploadFile:
    """A file as the server that Streamlit uses takes it in."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'

    async def stream() -> AsyncIterator[bytes]:
        yield head
        yield bytes(size)
        yield b"\r\n--x--\r\n"

    form = await MultiPartParser(Headers({"content-type": "multipart/form-data; boundary=x"}), stream()).parse()
    file = form["file"]
    assert isinstance(file, UploadFile)
    return file


def test_names_of_classes_are_text_not_markup() -> None:
    chart = bars.chart([Answer("<script>alert(1)</script>", "a & b", 0.5)])
    assert "<script>" not in chart
    assert "a &amp; b" in chart
