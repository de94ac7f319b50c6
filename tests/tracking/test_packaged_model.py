"""A version as MLflow loads it: what it holds, what it predicts, what it refuses."""

import hashlib
import json
import os
import pickle
import shutil
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pytest
import yaml
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import load_model

from stages.evaluation import ood
from stages.inference import onnx_model
from stages.inference.onnx_model import softmax

from .conftest import ABOUT, CLASSES, SIDE, export, random_images, weights, with_about


@pytest.fixture
def saved(demo, tmp_path, monkeypatch):
    """A package on disk, written without loading its model."""
    with monkeypatch.context() as nothing_runs:
        nothing_runs.setattr("openvino.Core", None)
        demo.entry().package.save(tmp_path / "package")
    return tmp_path / "package"


@pytest.fixture
def packaged(saved):
    return load_model(str(saved))


def test_raw_images_become_calibrated_probabilities_or_labelled_rows_from_any_folder(saved, tmp_path):
    packaged, images = load_model(str(shutil.move(saved, tmp_path / "elsewhere"))), random_images(5)
    probabilities = packaged.predict(images)
    assert probabilities.dtype == np.float32
    assert probabilities.std(axis=0).min() > 0.01
    expected = softmax(images.reshape(5, -1).astype(np.float32) @ weights(0), ABOUT["temperature"])
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    np.testing.assert_array_equal(packaged.predict(images.tolist()), probabilities)
    assert packaged.predict(random_images(0)).shape == (0, 3)
    wide = np.full((5, SIDE, 3 * SIDE, 3), 77, np.uint8)
    wide[:, :, SIDE : 2 * SIDE] = images
    np.testing.assert_array_equal(packaged.predict(wide), probabilities)
    padded = np.full((5, 3 * SIDE, 3 * SIDE, 3), 255, np.uint8)
    padded[:, SIDE : 2 * SIDE] = wide
    np.testing.assert_array_equal(packaged.predict(wide, params={"square": "pad"}), packaged.predict(padded))
    rows = packaged.predict(images, params={"top_k": 2})
    assert rows["class"].tolist() == [CLASSES[label] for row in probabilities for label in np.argsort(-row)[:2]]
    assert rows["out_of_distribution"][::2].tolist() == (probabilities.max(axis=1) < 0.4).tolist()
    assert len(packaged.predict(random_images(0), params={"top_k": 2})) == 0


def test_a_score_with_a_reference_finds_it_in_the_package(demo, tmp_path):
    logits = random_images(200).reshape(200, -1).astype(np.float32) @ weights(0) / ABOUT["temperature"]
    reference = ood.reference(logits, logits.argmax(axis=1))
    rule = {
        "score": "mahalanobis",
        "threshold": float(np.median(onnx_model.ood_scores(logits, reference)["mahalanobis"])),
    }
    package = replace(demo.entry().package, about=ABOUT | {"ood": rule | {"reason": None}}, reference=reference)
    package.save(tmp_path / "package")
    rows = load_model(str(tmp_path / "package")).predict(random_images(200), params={"top_k": 1})
    expected = onnx_model.ood_scores(logits, reference)["mahalanobis"] < rule["threshold"]
    assert (rows["out_of_distribution"].to_numpy(bool) == expected).mean() > 0.98
    assert expected.mean() == 0.5


@pytest.mark.parametrize(
    ("images", "params"),
    [
        (random_images(1).astype(np.float32), {}),
        ({"inputs": random_images(1)}, {}),
        (random_images(1), {"top_k": 4}),
        (random_images(1, side=6), {"square": "squeeze"}),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(packaged, images, params):
    with pytest.raises(MlflowException) as refusal:
        packaged.predict(images, params=params)
    assert refusal.value.get_http_status_code() == 400
    assert "\n" not in refusal.value.message
    for name, value in params.items():
        assert refusal.value.message.startswith(f"{name} = {value!r}: ")


def test_a_network_that_fails_is_an_error_without_a_stack_trace(packaged, monkeypatch):
    def fail(images):
        raise RuntimeError("no memory left")

    monkeypatch.setattr(packaged.unwrap_python_model().classifier.network, "logits", fail)
    with pytest.raises(MlflowException) as failure:
        packaged.predict(random_images(2))
    assert failure.value.get_http_status_code() == 500
    assert json.loads(failure.value.serialize_as_json()) == {
        "error_code": "INTERNAL_ERROR",
        "message": "the model failed on these images (RuntimeError: no memory left)",
    }


def test_a_version_says_all_that_it_needs_where_it_comes_from_and_what_it_takes(packaged, demo):
    metadata, package, signature = packaged.metadata.metadata, demo.entry().package, packaged.metadata.signature
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


def test_the_package_hash_follows_everything_but_the_metrics(demo, monkeypatch):
    entry = demo.entry()
    changed = [entry, with_about(entry, temperature=1.5), demo.entry(seed=1), demo.entry("b")]
    hashes = [each.package.metadata["package_sha256"] for each in changed]
    assert demo.entry(test=0.9).package.metadata["package_sha256"] == hashes[0]
    monkeypatch.setattr(onnx_model, "FORMAT", 4)
    hashes.append(entry.package.metadata["package_sha256"])
    assert len(set(hashes)) == len(hashes)


def test_the_file_that_export_chose_travels_with_one_file_of_code_and_five_pinned_libraries(demo, tmp_path):
    package = tmp_path / "package"
    exported = export(tmp_path, "a", seed=0, precision="int8", name="model.int8.onnx")
    replace(demo.entry().package, exported=exported).save(package)
    names = {file.relative_to(package).as_posix() for file in package.rglob("*.*")}
    ours = {name for name in names if not name.endswith((".yaml", ".txt", ".json"))}
    assert ours == {"artifacts/model.onnx", "onnx_model.py"}
    assert (package / "artifacts" / "model.onnx").read_bytes() == exported.file.read_bytes()
    assert load_model(str(package)).metadata.metadata["precision"] == "int8"
    libraries = ("mlflow", "numpy", "openvino", "pandas", "pillow")
    lines = (package / "requirements.txt").read_text().splitlines()
    assert sorted(lines) == [f"{library}=={version(library)}" for library in libraries]


class Bomb:
    """Unpickled, it leaves a folder in the working directory."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("in_place_of", ["artifacts/model.onnx", "onnx_model.py"])
def test_a_planted_pickle_is_refused_unread(saved, tmp_path, monkeypatch, in_place_of):
    monkeypatch.chdir(tmp_path)
    description = yaml.safe_load((saved / "MLmodel").read_text())
    content = pickle.dumps(Bomb())
    if in_place_of == "onnx_model.py":  # as the pickled model that MLflow's own layout knows
        flavor = description["flavors"]["python_function"]
        del flavor["model_code_path"]
        flavor |= {"python_model": "python_model.pkl", "loader_module": "mlflow.pyfunc.model"}
        (saved / "python_model.pkl").write_bytes(content)
    else:
        (saved / in_place_of).write_bytes(content)
        description["metadata"]["onnx_sha256"] = hashlib.sha256(content).hexdigest()
    (saved / "MLmodel").write_text(yaml.safe_dump(description))
    with pytest.raises((MlflowException, ValueError), match="pickle is disallowed|is no ONNX model"):
        load_model(str(saved))
    assert not (tmp_path / "exploded").exists()
