"""The page Classify and what holds for the whole app, with real registries and small real models."""

import gc
import shutil
import tomllib
from pathlib import Path
from unittest.mock import Mock

import pytest
from mlflow import MlflowClient
from PIL import Image
from starlette.formparsers import MultiPartParser

from gui import archives, bars, images, registry, saliency, samples, words
from tests.gui.conftest import BLUE, RED, LogComparison, Register, as_file, champions_comparison, image_file
from tests.gui.pages import APP, answers, html, only_error, open_app, top_class, upload

GREY = image_file((128, 128, 128))
OTHER_CLASSES = ["tomato", "pea", "sky", "snow", "coal", "sun"]


def test_the_champion_classifies_an_uploaded_image(register: Register) -> None:
    register(champion=False)
    register(model="vit_scratch")
    page = open_app()
    about = "**cifar100-classifier**, version 2: champion, vit_scratch · 6 classes · 64.0\N{NARROW NO-BREAK SPACE}%"
    assert page.caption[0].value.startswith(about)
    assert not answers(page)
    assert not page.info
    upload(page, image_file(RED, (300, 200)))
    (found,) = answers(page)
    assert found[0][:2] == ("red apple", "plants")
    shares = [percent for *_, percent in found]
    assert shares == sorted(shares, reverse=True)
    assert 90 < shares[0] < sum(shares) <= 100.3
    first, second = (image.proto.imgs[0] for image in page.image)
    assert first.alt == "The image"
    assert second.caption == "What the model sees: 8 by 8 pixels"
    assert not page.warning


def test_an_image_becomes_square_as_its_user_says_at_first_as_the_version_does(register: Register) -> None:
    register(square="pad", without=["metrics"])
    image = Image.new("RGB", (90, 30), BLUE)
    image.paste(RED, (30, 0, 60, 30))
    page = upload(open_app(), as_file(image))
    assert "test set" not in page.caption[0].value  # it has no metrics
    assert page.radio[0].value == "pad"
    assert top_class(page) == "white rabbit"
    page.radio[0].set_value("crop").run()
    assert top_class(page) == "red apple"


def test_of_several_registered_models_the_one_promoted_last_answers(
    register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    register("garden-classifier", promoted_at="2026-03-01T00:00:00+00:00")
    register("zoo-classifier", promoted_at="2026-03-02T00:00:00+02:00")  # 22:00 on the first of March in UTC
    register("demo-classifier", promoted_at="2026-03-01T20:00:00-05:00")  # 01:00 on the second: the last of all
    register("cellar-classifier", promoted_at="no date")
    page = open_app()
    assert page.selectbox[0].options == ["demo-classifier", "zoo-classifier", "garden-classifier", "cellar-classifier"]
    assert "demo-classifier" in page.caption[0].value
    assert len(page.info) == 1  # that it is a demo
    page.selectbox[0].set_value("garden-classifier").run()
    assert "garden-classifier" in page.caption[0].value
    monkeypatch.setenv("MODEL_NAME", "zoo-classifier")
    page = open_app()
    assert not page.selectbox
    assert "zoo-classifier" in page.caption[0].value
    monkeypatch.setenv("MODEL_NAME", "moon-classifier")
    message = only_error(page.run())
    assert "moon-classifier" in message
    assert "demo-classifier, zoo-classifier, garden-classifier, cellar-classifier" in message


def test_a_new_champion_is_announced_and_answers_at_the_next_interaction(
    register: Register, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Mock(wraps=registry.load)
    monkeypatch.setattr(registry, "load", load)
    register()
    page = upload(open_app(), image_file(RED)).run()
    assert top_class(page) == "red apple"
    assert not page.toast
    open_app()
    assert load.call_count == 1  # once for all sessions
    register(class_names=OTHER_CLASSES)
    assert top_class(page.run()) == "tomato"
    assert "version 2" in page.caption[0].value
    assert "version 2 of cifar100-classifier" in page.toast[0].value
    assert not page.run().toast
    # A registry made anew has versions of the same numbers.
    client.delete_registered_model("cifar100-classifier")
    register()
    register()
    assert top_class(page.run()) == "red apple"
    assert [call.args[0].number for call in load.call_args_list] == [1, 2, 2]


def test_other_versions_than_the_champion_can_be_chosen(register: Register, client: MlflowClient) -> None:
    register(model="vit_scratch", alias="vit_scratch")
    register(model="mobilenet_transfer", alias="mobilenet_transfer", champion=False, class_names=OTHER_CLASSES)
    register(champion=False)  # without an alias: not offered
    page = upload(open_app(), image_file(RED))
    assert page.selectbox[0].options == ["vit_scratch (champion, version 1)", "mobilenet_transfer (version 2)"]
    assert top_class(page) == "red apple"
    page.selectbox[0].set_value("mobilenet_transfer").run()
    assert top_class(page) == "tomato"
    assert "version 2: mobilenet_transfer" in page.caption[0].value
    assert not page.toast
    register(model="vit_scratch", alias="vit_scratch")
    page.run()
    assert top_class(page) == "tomato"  # the choice stays
    assert "version 4" in page.toast[0].value
    client.set_registered_model_alias("cifar100-classifier", "champion", 2)
    assert "version 2: champion, mobilenet_transfer" in page.run().caption[0].value  # though it was loaded before


def test_all_models_answer_side_by_side_and_a_broken_one_leaves_the_others_alone(
    register: Register, tmp_path: Path
) -> None:
    for model in ("vit_scratch", "vit_transfer", "mobilenet_transfer"):
        register(model=model, alias=model, champion=model == "vit_scratch")
    shutil.rmtree(tmp_path / "models" / "2")  # the second of the three, the last one follows
    page = upload(open_app(), image_file(RED))
    assert len(answers(page)) == 1
    page.toggle(key="beside").set_value(True).run()
    page.toggle(key="why").set_value(True).run()
    assert [found[0][0] for found in answers(page)] == ["red apple"] * 3
    assert [len(found) for found in answers(page)] == [5, 3, 3]
    assert len(page.image) == 5  # two, and three heat maps
    assert "Version 3 of cifar100-classifier" in page.error[0].value
    assert len(page.error) == 1
    assert len(upload(page, GREY).warning) == 3  # each says that the image is out-of-distribution


def test_one_of_several_files_or_a_photo_is_classified(register: Register) -> None:
    register()
    files = [image_file(RED), image_file(BLUE)]  # of the same name
    page = upload(open_app(), *files)
    assert top_class(page) == "blue sea"
    page.selectbox[0].set_value(0).run()
    assert top_class(page) == "red apple"
    upload(page, *files, b"x")
    assert page.selectbox[0].value == 2
    assert len(page.warning) == 1
    page.selectbox[0].set_value(1).run()
    assert top_class(page) == "blue sea"
    assert not page.camera_input  # before it is chosen
    page.segmented_control[0].set_value("camera").run()
    page.camera_input[0].set_value(("photo.jpg", image_file(RED, kind="JPEG"), "image/jpeg")).run()
    assert top_class(page) == "red apple"


def test_a_test_image_is_classified_and_its_label_is_shown(register: Register, log_comparison: LogComparison) -> None:
    number = register()
    page = open_app()
    page.segmented_control[0].set_value("sample").run()
    assert "make register" in only_error(page)  # there is no comparison, thus no test image
    page.segmented_control[0].set_value("upload").run()
    assert top_class(upload(page, image_file(RED))) == "red apple"
    log_comparison(number)
    page.segmented_control[0].set_value("sample").run()
    assert not page.error
    assert not answers(page)
    explorer = champions_comparison().explorer()
    options = page.pills[0].options
    assert len(set(options)) == samples.SHOWN
    for index in samples.on_page(len(explorer.images), 1):
        page.pills[0].set_value(index).run()
        truth = explorer.class_names[explorer.labels[index]]
        assert f"{'Right' if top_class(page) == truth else 'Wrong'}: the label is <b>{truth}</b>" in html(page)
    last = top_class(page)
    page.get("pagination")[0].set_value(2).run()
    assert not set(page.pills[0].options) & set(options)
    assert top_class(page) == last  # stays until another one is chosen


def test_the_prediction_set_is_named_whatever_its_size(register: Register) -> None:
    register(conformal={"90": 0.0})
    page = upload(open_app(), image_file(RED))
    assert "1 of 6 classes: <b>red apple</b>" in html(page)
    assert words.PROMISE in [caption.value for caption in page.caption]
    register(conformal={"90": 0.9})
    assert "classes: <b>yellow lemon, green leaf" in html(upload(page, image_file((140, 140, 30))))
    assert words.prediction_set(["<a>", "b"], 100).endswith("2 of 100 classes: <b>&lt;a&gt;, b</b>")
    names = list(map(str, range(words.NAMED + 2)))
    assert words.prediction_set(names, 100).endswith(", 7</b> and 2 more")
    assert "<i>" not in words.verdict("<i>", "<i>") + words.explanation("<i>", 1, 0) + words.explanation("<i>", 1, 1)


def test_an_image_out_of_distribution_gets_a_warning_with_its_numbers(register: Register) -> None:
    register(metrics={"ood": {"flagged_test": 0.0471}})
    page = upload(open_app(), GREY)
    assert "40.0" in page.warning[0].value  # the threshold
    assert "4.7" in page.warning[0].value  # how often it is wrong
    assert not upload(page, image_file(RED)).warning
    register(metrics={"ood": {"flagged_test": 0.0}})
    assert "0.0\N{NARROW NO-BREAK SPACE}% of the test images" in upload(page, GREY).warning[0].value
    register(without=["metrics"])
    assert "about 5" in upload(page, GREY).warning[0].value
    register(ood={"score": "energy", "threshold": None, "reason": "AUROC 0.43 on far images"})
    page = upload(page, GREY)
    assert not page.warning
    assert "AUROC 0.43 on far images" in " ".join(caption.value for caption in page.caption)
    register(ood={"score": "energy", "threshold": 100.0, "reason": None}, metrics={"ood": {"flagged_test": 0.05}})
    assert "The energy score is below 100.00, as on 5.0" in upload(page, GREY).warning[0].value


def test_an_explanation_is_computed_once_for_an_image_and_a_version(
    register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    occlusion = Mock(wraps=saliency.occlusion)
    monkeypatch.setattr(saliency, "occlusion", occlusion)
    page = upload(open_app(), image_file(RED))
    assert not occlusion.called
    page.toggle(key="why").set_value(True).run()
    assert "red apple" in page.image[2].proto.imgs[0].alt
    page.run()
    assert occlusion.call_count == 1
    upload(page, image_file(BLUE))
    assert occlusion.call_count == 2
    register()
    page.run()
    assert occlusion.call_count == 3


def test_limits_of_uploads_agree_and_below_them_nothing_goes_through_a_file(register: Register) -> None:
    register()
    assert open_app().file_uploader[0].proto.max_upload_size_mb == images.MAX_MEGABYTES
    limit = archives.MAX_ARCHIVE_MEGABYTES
    assert MultiPartParser.spool_max_size == limit * 2**20
    configuration = tomllib.loads((APP.parent / ".streamlit" / "config.toml").read_text())
    assert configuration["server"]["maxUploadSize"] == limit >= images.MAX_MEGABYTES


def test_garbage_is_not_searched_for_in_what_was_loaded(register: Register) -> None:
    gc.unfreeze()
    register()
    open_app()
    assert gc.get_freeze_count() > 10 * len(gc.get_objects())
    assert gc.get_threshold()[0] > 10_000
    gc.unfreeze()


def test_names_of_classes_are_text_not_markup() -> None:
    chart = bars.chart([{"class": "<script>alert(1)</script>", "superclass": "a & b", "probability": 0.5}])
    assert "<script>" not in chart
    assert "a &amp; b" in chart
