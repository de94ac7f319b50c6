"""A version as MLflow loads it: what it holds, what it predicts, what it refuses."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel, load_model

from stages.common.errors import UserError
from stages.inference import onnx_model
from stages.inference.onnx_model import softmax
from stages.tracking.registry import Entry

from . import bombs
from .conftest import ABOUT, CLASSES, SIDE, export, random_images, weights, with_about, with_metrics


@pytest.fixture
def saved(make_entry: Callable[..., Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package on disk, written without loading its model."""
    with monkeypatch.context() as nothing_runs:
        nothing_runs.setattr("openvino.Core", None)
        make_entry().package.save(tmp_path / "package")
    return tmp_path / "package"


@pytest.fixture
def packaged(saved: Path) -> PyFuncModel:
    return load_model(str(saved))


def _expected(images: np.ndarray) -> np.ndarray:
    return softmax(images.reshape(len(images), -1).astype(np.float32) @ weights(0), ABOUT["temperature"])


def test_raw_images_become_calibrated_probabilities_from_any_folder(saved: Path, tmp_path: Path) -> None:
    packaged = load_model(str(shutil.move(saved, tmp_path / "elsewhere")))
    probabilities = packaged.predict(random_images(5))
    assert probabilities.dtype == np.float32
    assert probabilities.std(axis=0).min() > 0.01
    np.testing.assert_allclose(probabilities, _expected(random_images(5)), atol=1e-6)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(packaged.predict(random_images(5).tolist()), probabilities)
    assert packaged.predict(random_images(0)).shape == (0, 3)
    assert len(packaged.predict(random_images(0), params={"top_k": 2})) == 0


def test_larger_images_are_shrunk_and_others_made_square_by_the_versions_rule_or_the_one_asked_for(
    packaged: PyFuncModel,
) -> None:
    large = random_images(2).repeat(3, axis=1).repeat(3, axis=2)
    np.testing.assert_array_equal(packaged.predict(large), packaged.predict(random_images(2)))
    wide = np.full((2, SIDE, 3 * SIDE, 3), 77, np.uint8)
    wide[:, :, SIDE : 2 * SIDE] = random_images(2)
    np.testing.assert_array_equal(packaged.predict(wide), packaged.predict(random_images(2)))
    padded = np.full((2, 3 * SIDE, 3 * SIDE, 3), 255, np.uint8)
    padded[:, SIDE : 2 * SIDE] = wide
    np.testing.assert_array_equal(packaged.predict(wide, params={"square": "pad"}), packaged.predict(padded))


def test_top_k_gives_labelled_rows_with_prediction_set_and_flag(packaged: PyFuncModel) -> None:
    probabilities = packaged.predict(random_images(2))
    rows = packaged.predict(random_images(2), params={"top_k": 2})
    assert isinstance(rows, pd.DataFrame)
    columns = ["image", "rank", "class", "superclass", "probability", "prediction_set", "out_of_distribution"]
    assert list(rows.columns) == columns
    assert rows[["image", "rank"]].to_numpy().tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
    superclasses = {"apple": "thing", "bear": "being", "clock": "thing"}
    for image, row in enumerate(probabilities):
        order = np.argsort(-row)
        assert rows["class"][2 * image] == CLASSES[order[0]]
        assert rows["superclass"][2 * image] == superclasses[CLASSES[order[0]]]
        assert rows["probability"][2 * image + 1] == row[order[1]]
        needed = 1 + int(row[order[0]] <= 0.5)  # one more while those before it sum to at most conformal["90"]
        needed += int(needed == 2 and row[order[:2]].sum() <= 0.5)
        assert rows["prediction_set"][2 * image] == [CLASSES[label] for label in order[:needed]]
        assert rows["out_of_distribution"][2 * image] == (row.max() < 0.4)


@pytest.mark.parametrize(
    ("images", "params"),
    [
        (random_images(1).astype(np.float32), {}),
        (random_images(1)[0], {}),
        ("image.png", {}),
        ({"inputs": random_images(1)}, {}),
        ([[[[0, 0, 256]]]], {}),
        ([*random_images(1).tolist(), *random_images(1, side=5).tolist()], {}),
        (random_images(1), {"top_k": 4}),
        (random_images(1, side=6), {"square": "squeeze"}),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(packaged: PyFuncModel, images: object, params: dict) -> None:
    with pytest.raises(MlflowException) as refusal:
        packaged.predict(images, params=params)  # type: ignore[arg-type]
    assert refusal.value.get_http_status_code() == 400
    assert "\n" not in refusal.value.message
    for name, value in params.items():
        assert refusal.value.message.startswith(f"{name} = {value!r}: ")


def test_a_network_that_fails_is_an_error_without_a_stack_trace(
    packaged: PyFuncModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(images: np.ndarray) -> None:
        raise RuntimeError("no memory left")

    monkeypatch.setattr(packaged.unwrap_python_model().classifier.network, "logits", fail)
    with pytest.raises(MlflowException) as failure:
        packaged.predict(random_images(2))
    assert failure.value.get_http_status_code() == 500
    assert json.loads(failure.value.serialize_as_json()) == {
        "error_code": "INTERNAL_ERROR",
        "message": "the model failed on these images (RuntimeError: no memory left)",
    }


def test_a_version_says_all_that_it_needs_where_it_comes_from_and_what_it_takes(
    packaged: PyFuncModel, make_entry: Callable[..., Entry]
) -> None:
    metadata, package, signature = packaged.metadata.metadata, make_entry().package, packaged.metadata.signature
    assert metadata == package.metadata
    assert ABOUT.items() <= metadata.items()
    assert (metadata["format"], metadata["model"], metadata["image_size"]) == (onnx_model.FORMAT, "a", SIDE)
    assert (metadata["precision"], metadata["onnx_sha256"]) == ("float32", package.exported.sha256)
    assert metadata["weights_sha256"] == package.exported.description["weights_sha256"]
    assert metadata["metrics"]["val"]["top1"] == 0.5
    [images], [probabilities] = signature.inputs.inputs, signature.outputs.inputs
    assert (images.type, images.shape) == (np.dtype(np.uint8), (-1, -1, -1, 3))
    assert (probabilities.type, probabilities.shape) == (np.dtype(np.float32), (-1, 3))
    assert [(param.name, param.default) for param in signature.params] == [("top_k", 0), ("square", "")]


def test_the_package_hash_follows_everything_but_the_metrics(
    make_entry: Callable[..., Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = make_entry()
    changed = [entry, with_about(entry, temperature=1.5), make_entry(seed=1), make_entry("b")]
    hashes = [each.package.metadata["package_sha256"] for each in changed]
    assert with_metrics(entry, test={"top1": 0.9}).package.metadata["package_sha256"] == hashes[0]
    monkeypatch.setattr(onnx_model, "FORMAT", 3)
    hashes.append(entry.package.metadata["package_sha256"])
    assert len(set(hashes)) == len(hashes)


def test_the_file_that_export_chose_travels_with_one_file_of_code_and_five_pinned_libraries(
    make_entry: Callable[..., Entry], tmp_path: Path
) -> None:
    package = tmp_path / "package"
    exported = export(tmp_path, "a", seed=0, precision="int8", name="model.int8.onnx")
    replace(make_entry().package, exported=exported).save(package)
    names = {file.relative_to(package).as_posix() for file in package.rglob("*.*")}
    ours = {name for name in names if not name.endswith((".yaml", ".txt", ".json"))}
    assert ours == {"artifacts/model.onnx", "onnx_model.py"}
    assert (package / "artifacts" / "model.onnx").read_bytes() == exported.file.read_bytes()
    assert load_model(str(package)).metadata.metadata["precision"] == "int8"
    libraries = ("mlflow", "numpy", "openvino", "pandas", "pillow")
    lines = (package / "requirements.txt").read_text().splitlines()
    assert sorted(lines) == [f"{library}=={version(library)}" for library in libraries]


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_file_that_is_not_what_was_exported_is_not_packaged(
    make_entry: Callable[..., Entry], tmp_path: Path, is_gone: bool
) -> None:
    package = make_entry().package
    package.exported.file.unlink() if is_gone else package.exported.file.write_bytes(b"other")
    with pytest.raises(UserError, match="run `dvc repro --force export@a`"):
        package.save(tmp_path / "package")
    assert not (tmp_path / "package").exists()


@pytest.mark.parametrize(
    ("plant", "reason"),
    [(bombs.as_weights, "is no ONNX model of an image classifier"), (bombs.as_python_model, "pickle is disallowed")],
)
def test_a_planted_pickle_is_refused(saved: Path, bomb: Path, plant: Callable[[Path], None], reason: str) -> None:
    plant(saved)
    with pytest.raises((MlflowException, ValueError), match=reason):
        load_model(str(saved))
    assert not bomb.exists()
