"""What the app asks of a registry and of a loaded version."""

import gc
import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import FileInfo
from mlflow.store.artifact import artifact_repository_registry
from mlflow.store.artifact.artifact_repo import ArtifactRepository

from gui import registry
from gui.registry import Model, Registry, RegistryError, Square
from stages.inference import onnx_model
from tests.gui.conftest import BLUE, RED, Register

NAME = "cifar100-classifier"


def test_champions_come_with_tags_and_aliases_the_one_promoted_last_first(
    register: Register, tracking_uri: str
) -> None:
    register("garden-classifier", promoted_at="2026-02-01T00:00:00+00:00")
    register("zoo-classifier", promoted_at="2026-02-02T00:00:00+00:00", alias="vit_scratch", model="vit_scratch")
    zoo, garden = Registry(tracking_uri).champions()
    assert (zoo.name, garden.name) == ("zoo-classifier", "garden-classifier")
    assert zoo.tags["model"] == "vit_scratch"
    assert zoo.aliases == ("champion", "vit_scratch")
    assert garden.aliases == ("champion",)


def test_a_broken_registered_model_is_left_out_of_the_champions(
    register: Register, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    register("broken-classifier")
    register("zoo-classifier")
    look_up = MlflowClient.get_model_version

    def fails_on_one(client: MlflowClient, name: str, version: str) -> object:
        if name == "broken-classifier":
            raise ValueError("a row that nobody understands")
        return look_up(client, name, version)

    monkeypatch.setattr(MlflowClient, "get_model_version", fails_on_one)
    assert [champion.name for champion in Registry(tracking_uri).champions()] == ["zoo-classifier"]
    MlflowClient(tracking_uri=tracking_uri).delete_registered_model("zoo-classifier")
    with pytest.raises(RegistryError, match="a row that nobody understands"):
        Registry(tracking_uri).champions()


def test_more_registered_models_than_fit_a_page_are_all_found(
    register: Register, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("attic-classifier", "garden-classifier", "zoo-classifier"):
        register(name)
    search = MlflowClient.search_registered_models
    monkeypatch.setattr(
        MlflowClient,
        "search_registered_models",
        lambda client, page_token=None: search(client, max_results=1, page_token=page_token),
    )
    assert len(Registry(tracking_uri).champions()) == 3


def test_aliases_name_versions_and_a_version_knows_all_of_its_aliases(register: Register, tracking_uri: str) -> None:
    register(alias="vit_scratch")
    register(champion=False, alias="mobilenet_transfer")
    aliases = Registry(tracking_uri).aliases(NAME)
    assert {alias: version.number for alias, version in aliases.items()} == {
        "champion": 1,
        "mobilenet_transfer": 2,
        "vit_scratch": 1,
    }
    assert aliases["vit_scratch"].aliases == ("champion", "vit_scratch")
    with pytest.raises(RegistryError, match="No model `moon` is registered"):
        Registry(tracking_uri).aliases("moon")


def test_a_version_is_found_by_alias_and_by_number(register: Register, tracking_uri: str) -> None:
    register()
    register(champion=False, alias="mobilenet_transfer")
    asked = Registry(tracking_uri)
    assert asked.version(NAME, "champion").number == 1
    assert asked.version(NAME, 2) == asked.version(NAME, "2") == asked.version(NAME, "mobilenet_transfer")
    with pytest.raises(RegistryError, match="no alias `challenger`: .* one of champion, mobilenet_transfer"):
        asked.version(NAME, "challenger")
    with pytest.raises(RegistryError, match="no version 7"):
        asked.version(NAME, 7)


def champion() -> Model:
    return registry.load(registry.connect().champions()[0])


def test_a_version_answers_with_its_own_classifier(register: Register) -> None:
    register(model="vit_scratch")
    model = champion()
    pictures = np.empty((3, 20, 30, 3), np.uint8)
    pictures[:] = np.array([RED, BLUE, RED], np.uint8)[:, np.newaxis, np.newaxis]
    probabilities = model.probabilities(pictures)
    assert probabilities.shape == (3, 6)
    assert probabilities.dtype == np.float32
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert (probabilities == model.packaged.predict(pictures)).all()
    red, blue, _ = model.classified(probabilities, 2)
    assert [answer.class_name for answer in red.answers] == ["red apple", "yellow lemon"]
    first, second = blue.answers
    assert (first.class_name, first.superclass_name) == ("blue sea", "things & waters")
    assert first.probability == probabilities[1].max() > second.probability
    rows = model.packaged.predict(pictures, params={"top_k": 2})
    assert rows["class"].tolist()[2:4] == ["blue sea", second.class_name]
    assert rows["prediction_set"].tolist()[2] == ["blue sea"]
    assert blue.prediction_set == ["blue sea"]
    assert [rows["out_of_distribution"].tolist()[2], blue.out_of_distribution] == [False, False]
    assert (model.name, model.square, model.ood_threshold, model.test_accuracy) == ("vit_scratch", "crop", 0.4, 0.64)


def test_of_few_classes_there_are_few_answers(register: Register) -> None:
    register()
    assert len(champion().classified(np.full((1, 6), 1 / 6, np.float32), 100)[0].answers) == 6


@pytest.mark.parametrize(("threshold", "count"), [(0.0, 1), (0.5, 2), (0.81, 3), (1.0, 6)])
def test_the_prediction_set_is_that_of_the_versions_threshold(register: Register, threshold: float, count: int) -> None:
    register(conformal={"90": threshold})
    row = np.array([0.5, 0.3, 0.1, 0.05, 0.03, 0.02], np.float32)
    expected = ["red apple", "green leaf", "blue sea", "white rabbit", "black cat", "yellow lemon"][:count]
    assert champion().classified(row[np.newaxis], 1)[0].prediction_set == expected


@pytest.mark.parametrize(("threshold", "expected"), [(0.8, True), (0.2, False), (None, None)])
def test_an_image_is_out_of_distribution_by_the_versions_threshold(
    register: Register, threshold: float | None, expected: bool | None
) -> None:
    register(ood_threshold=threshold)
    row = np.array([0.5, 0.3, 0.1, 0.05, 0.03, 0.02], np.float32)
    assert champion().classified(row[np.newaxis], 1)[0].out_of_distribution is expected


@pytest.mark.parametrize(("own", "square", "expected"), [("crop", None, 0), ("pad", None, 3), ("crop", "pad", 3)])
def test_images_are_made_square_by_the_versions_rule_unless_another_is_asked_for(
    register: Register, own: str, square: Square | None, expected: int
) -> None:
    register(square=own)
    image = np.full((30, 90, 3), RED, np.uint8)
    model = champion()
    seen = model.prepare(image, square)
    assert seen.shape == (8, 8, 3)
    assert model.probabilities(seen[np.newaxis])[0].argmax() == expected  # 3: mostly white


class Far(ArtifactRepository):
    """Files that have to be fetched, as those in S3 have."""

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        top = self._place("")
        return [
            FileInfo(str(file.relative_to(top)), file.is_dir(), None if file.is_dir() else file.stat().st_size)
            for file in (self._place(path or "")).iterdir()
        ]

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        shutil.copy(self._place(remote_file_path), local_path)

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        raise NotImplementedError

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        raise NotImplementedError

    def _place(self, path: str) -> Path:
        return Path(self.artifact_uri.removeprefix("far://")) / path


@pytest.mark.parametrize("scheme", ["file", "far"])
def test_only_files_that_were_fetched_for_a_model_go_with_it(
    register: Register, tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setitem(artifact_repository_registry._artifact_repository_registry._registry, "far", Far)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    register()
    MlflowClient(tracking_uri=tracking_uri).create_model_version(
        NAME, f"{scheme}://{tmp_path / 'models' / '0'}", tags={"model": "a"}
    )
    model = registry.load(registry.connect().version(NAME, 2))
    assert model.probabilities(np.zeros((1, 9, 9, 3), np.uint8)).argmax() == 4
    fetched = list(temporary.rglob("MLmodel"))
    assert len(fetched) == (scheme == "far")
    del model
    gc.collect()
    assert not list(temporary.rglob("MLmodel"))
    assert (tmp_path / "models" / "0" / "MLmodel").is_file()


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


def test_a_file_that_is_not_what_was_registered_is_refused_before_any_code_runs(
    register: Register, tracking_uri: str, tmp_path: Path
) -> None:
    register()
    (tmp_path / "models" / "0" / "onnx_model.py").write_text("raise SystemExit('it ran')")
    client = MlflowClient(tracking_uri=tracking_uri)
    tag = client.get_model_version(NAME, "1").tags["onnx_sha256"]
    client.set_model_version_tag(NAME, "1", "onnx_sha256", "b" * 64)
    with pytest.raises(RegistryError, match=rf"^model.onnx of version 1 .*\(sha256 {tag[:12]}.* expected b{{12}}"):
        champion()
    client.set_model_version_tag(NAME, "1", "onnx_sha256", tag)
    file = tmp_path / "models" / "0" / "artifacts" / "model.onnx"
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(RegistryError, match=f"expected {tag[:12]}.*make register") as refusal:
        champion()
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("missing", ["format", "onnx_sha256"])
def test_a_version_of_an_earlier_release_is_one_line_and_none_of_its_code_runs(
    register: Register, tmp_path: Path, missing: str
) -> None:
    register(without=[missing])
    (tmp_path / "models" / "0" / "onnx_model.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(
        RegistryError,
        match="^Version 1 of cifar100-classifier was registered by an earlier release of this project: .*make register",
    ) as refusal:
        champion()
    assert "\n" not in str(refusal.value)


def test_a_version_of_a_newer_release_is_one_line(register: Register, tmp_path: Path) -> None:
    register(format=registry.FORMAT + 1)
    (tmp_path / "models" / "0" / "onnx_model.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(RegistryError, match="registered by a newer release .*format 3, .* up to 2.*: update this app"):
        champion()


def test_the_app_knows_the_format_that_is_registered_today() -> None:
    assert registry.FORMAT == onnx_model.FORMAT
    assert get_args(Square) == onnx_model.SQUARES
