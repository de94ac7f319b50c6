"""What is asked of a registry and of a loaded version."""

import tempfile
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from mlflow import MlflowClient

from gui import registry
from gui.registry import HISTORY, ModelRegistry, RegistryError, Square
from stages.inference import onnx_model
from tests.gui.conftest import BLUE, RED, Register, champions_model

NAME = "cifar100-classifier"


def test_more_models_and_versions_than_fit_a_page_are_all_found(
    register: Register, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("attic-classifier", "garden-classifier", "zoo-classifier", "zoo-classifier"):
        register(name)
    for method in ("search_registered_models", "search_model_versions"):
        search = getattr(MlflowClient, method)
        monkeypatch.setattr(
            MlflowClient, method, lambda *asked, search=search, **paged: search(*asked, max_results=1, **paged)
        )
    assert len(ModelRegistry(tracking_uri).champions()) == 3
    assert [period.version for period in ModelRegistry(tracking_uri).history("zoo-classifier")] == ["2", "1"]


def test_versions_with_an_alias_stand_under_the_one_that_says_most(
    register: Register, tracking_uri: str, client: MlflowClient
) -> None:
    register(alias="vit_scratch", model="vit_scratch")
    register(champion=False)
    register(champion=False, alias="challenger", model="mobilenet_transfer")
    number = register(champion=False, alias="vit_transfer", model="vit_transfer")
    client.set_registered_model_alias(NAME, "a-favourite", str(number))
    rivals = ModelRegistry(tracking_uri).rivals(NAME)
    found = [(alias, version.number) for alias, version in rivals.items()]
    assert found == [("champion", 1), ("vit_transfer", 4), ("challenger", 3)]
    assert rivals["champion"].aliases == ("champion", "vit_scratch")
    with pytest.raises(RegistryError, match="No model `moon` is registered"):
        ModelRegistry(tracking_uri).rivals("moon")


@pytest.mark.parametrize("tag", [None, "no JSON", '[{"version": 1}]', "3"])
def test_without_a_history_the_present_champion_stands_alone(
    register: Register, tracking_uri: str, client: MlflowClient, tag: str | None
) -> None:
    register()
    register()
    client.set_model_version_tag(NAME, "2", "promoted_at", "2026-02-01")  # as stores of earlier releases say it
    client.delete_registered_model_tag(NAME, HISTORY)
    if tag:
        client.set_registered_model_tag(NAME, HISTORY, tag)
    assert [champion.number for champion in ModelRegistry(tracking_uri).champions()] == [2]
    (period,) = ModelRegistry(tracking_uri).history(NAME)
    assert period[:5] == ("2", None, "2026-02-01", "", False)
    client.delete_registered_model_alias(NAME, "champion")
    assert ModelRegistry(tracking_uri).history(NAME) == []


def test_a_version_predicts_with_its_own_classifier(register: Register) -> None:
    register(model="vit_scratch", metrics={"test": {"top1": 0.64}, "ood": {"flagged_test": 0.05}})
    model = champions_model()
    images = np.empty((3, 20, 30, 3), np.uint8)
    images[:] = np.array([RED, BLUE, RED], np.uint8)[:, np.newaxis, np.newaxis]
    probabilities = model.probabilities(images)
    assert (probabilities == model.packaged.predict(images)).all()
    rows = model.rows(model.logits(images), 2)
    expected = model.packaged.predict(images, params={"top_k": 2}).to_dict("records")
    assert rows == [expected[:2], expected[2:4], expected[4:]]
    assert [row["class"] for row in rows[0]] == ["red apple", "yellow lemon"]
    assert (rows[1][0]["class"], rows[1][0]["superclass"]) == ("blue sea", "things & waters")
    assert (model.name, model.square, model.ood["threshold"]) == ("vit_scratch", "crop", 0.4)
    assert (model.test_accuracy, model.ood_flagged) == (0.64, 0.05)


def test_threads_are_bounded_without_a_change_of_the_answers(register: Register, tracking_uri: str) -> None:
    register()
    bounded = registry.load(ModelRegistry(tracking_uri).champions()[0], threads=1)
    request = bounded.classifier.network._request
    assert request.get_compiled_model().get_property("INFERENCE_NUM_THREADS") == 1
    images = np.random.default_rng(0).integers(0, 256, (20, 9, 9, 3), dtype=np.uint8)
    np.testing.assert_allclose(bounded.probabilities(images), champions_model().probabilities(images), atol=1e-6)


def test_loading_leaves_no_file_behind_and_adds_none_to_the_store(
    register: Register, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    before = set((tmp_path / "models").rglob("*"))
    (temporary := tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert champions_model().probabilities(np.zeros((1, 9, 9, 3), np.uint8)).argmax() == 4
    assert not list(temporary.rglob("*.onnx"))
    assert set((tmp_path / "models").rglob("*")) == before


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://someone:secret@example.com:5000/a", "https://example.com:5000/a"),
        ("postgresql://me:s3@cr@t@db/mlflow", "postgresql://db/mlflow"),
        ("http://example.com, said someone@example.com", "http://example.com, said someone@example.com"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
    ],
)
def test_a_uri_is_shown_without_its_password_and_nothing_else_missing(uri: str, shown: str) -> None:
    assert registry.without_password(uri) == shown


@pytest.mark.parametrize(
    ("packaged", "reason"),
    [
        ({"without": ["format"]}, "registered by an earlier release of this project or another tool.*make register"),
        ({"without": ["onnx_sha256"]}, "registered by an earlier release of this project or another tool"),
        ({"format": 4}, r"registered by a newer release of this project \(format 4, known here: 3\): update this app"),
    ],
)
def test_a_version_of_another_release_is_one_line_and_none_of_its_code_runs(
    register: Register, tmp_path: Path, packaged: dict, reason: str
) -> None:
    register(**packaged)
    (tmp_path / "models" / "0" / "onnx_model.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(RegistryError, match=f"^Version 1 of cifar100-classifier was {reason}") as refusal:
        champions_model()
    assert "\n" not in str(refusal.value)


def test_files_that_are_not_those_that_were_registered_are_refused(
    register: Register, client: MlflowClient, tmp_path: Path
) -> None:
    register()
    sha256 = client.get_model_version(NAME, "1").tags["onnx_sha256"]
    client.set_model_version_tag(NAME, "1", "onnx_sha256", "b" * 64)
    with pytest.raises(RegistryError, match=rf"^The files of version 1 .*\(sha256 {sha256[:12]}.* expected b{{12}}"):
        champions_model()
    client.set_model_version_tag(NAME, "1", "onnx_sha256", sha256)
    file = tmp_path / "models" / "0" / "artifacts" / "model.onnx"
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(RegistryError, match="model.onnx was changed after it was registered.*make register") as refusal:
        champions_model()
    assert "\n" not in str(refusal.value)


def test_the_app_offers_the_squares_that_the_packaged_code_knows() -> None:
    assert get_args(Square) == onnx_model.SQUARES
