import json
import py_compile
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel, load_model

from stages.tracking.package import requirements
from stages.tracking.packaged_model import softmax
from stages.tracking.registry import Entry

from . import bombs
from .conftest import CLASSES, SIDE, pictures


@pytest.fixture
def saved(make_entry: Callable[..., Entry], tmp_path: Path) -> Path:
    """A package on disk."""
    make_entry().package.save(tmp_path / "package")
    return tmp_path / "package"


@pytest.fixture
def packaged(saved: Path) -> PyFuncModel:
    return load_model(str(saved))


def _expected(tmp_path: Path, images: np.ndarray) -> np.ndarray:
    from safetensors.numpy import load_file

    weights = load_file(tmp_path / "a-0" / "weights.safetensors")["weights"]
    return softmax(images.reshape(len(images), -1).astype(np.float32) @ weights)


def test_raw_pictures_become_probabilities(packaged: PyFuncModel, tmp_path: Path) -> None:
    probabilities = packaged.predict(pictures(5))
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, _expected(tmp_path, pictures(5)), atol=1e-6)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)


def test_pictures_of_any_size_are_shrunk_inside(packaged: PyFuncModel) -> None:
    large = pictures(2).repeat(3, axis=1).repeat(5, axis=2)
    np.testing.assert_array_equal(packaged.unwrap_python_model().shrink(large), pictures(2))
    np.testing.assert_array_equal(packaged.predict(large), packaged.predict(pictures(2)))


def test_top_k_gives_labelled_rows(packaged: PyFuncModel) -> None:
    probabilities = packaged.predict(pictures(2))
    rows = packaged.predict(pictures(2), params={"top_k": 2})
    assert list(rows.columns) == ["picture", "rank", "class", "superclass", "probability"]
    assert rows["picture"].tolist() == [0, 0, 1, 1]
    assert rows["rank"].tolist() == [1, 2, 1, 2]
    assert rows["class"][0] == CLASSES[probabilities[0].argmax()]
    assert rows["superclass"][0] == {"apple": "thing", "bear": "being", "clock": "thing"}[rows["class"][0]]
    assert rows["probability"][2] == probabilities[1].max()


@pytest.mark.parametrize(
    "images",
    [
        pictures(1).astype(np.float32),
        pictures(1)[0],
        pictures(1)[..., :2],
        np.zeros((1, 0, 4, 3), np.uint8),
        "picture.png",
        {"inputs": pictures(1)},
    ],
)
def test_what_is_no_batch_of_pictures_is_refused(packaged: PyFuncModel, images: object) -> None:
    with pytest.raises(MlflowException) as refusal:
        packaged.predict(images)  # type: ignore[arg-type]
    assert refusal.value.get_http_status_code() == 400


def test_nested_lists_are_pictures_too(packaged: PyFuncModel) -> None:
    np.testing.assert_array_equal(packaged.predict(pictures(3).tolist()), packaged.predict(pictures(3)))


@pytest.mark.parametrize(
    ("pixel", "reason"),
    [
        ([0.5, 1, 2], "fractions"),
        ([0, 0, 256], "from 0 to 255, not 0 to 256"),
        ([0, -1, 255], "not -1 to 255"),
        (["1", "2", "3"], "text"),
        ([None, 0, 0], "something else"),
        ([True, False, True], "true and false"),
        ([0, 0, 10**30], "something else"),
        ([0, 0], r"with pixels, not \(2, 1, 1, 2\)"),
        ([], r"with pixels, not \(2, 1, 1, 0\)"),
    ],
)
def test_lists_of_anything_but_pixels_are_refused(packaged: PyFuncModel, pixel: list[object], reason: str) -> None:
    with pytest.raises(MlflowException, match=reason) as refusal:
        packaged.predict([[[pixel]], [[pixel]]])
    assert refusal.value.get_http_status_code() == 400


def test_pictures_of_different_sizes_in_one_request_are_refused(packaged: PyFuncModel) -> None:
    with pytest.raises(MlflowException, match="of one size"):
        packaged.predict([*pictures(1).tolist(), *pictures(1, side=5).tolist()])


def test_a_classifier_that_fails_is_an_answer_without_a_stack_trace(
    packaged: PyFuncModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(images: np.ndarray) -> None:
        raise RuntimeError("no memory left")

    monkeypatch.setattr(packaged.unwrap_python_model().classifier, "logits", fail)
    with pytest.raises(MlflowException) as failure:
        packaged.predict(pictures(2))
    assert failure.value.get_http_status_code() == 500
    assert json.loads(failure.value.serialize_as_json()) == {
        "error_code": "INTERNAL_ERROR",
        "message": "the model failed on pictures (2, 4, 4, 3) (RuntimeError: no memory left)",
    }


@pytest.mark.parametrize("top_k", [-1, 4])
def test_an_impossible_top_k_is_refused(packaged: PyFuncModel, top_k: int) -> None:
    with pytest.raises(MlflowException, match="top_k") as refusal:
        packaged.predict(pictures(1), params={"top_k": top_k})
    assert refusal.value.get_http_status_code() == 400


def test_an_empty_batch_gives_no_rows(packaged: PyFuncModel) -> None:
    assert packaged.predict(pictures(0)).shape == (0, 3)
    assert len(packaged.predict(pictures(0), params={"top_k": 2})) == 0


def test_the_temperature_flattens_the_probabilities() -> None:
    logits = np.array([[2.0, 0.0]], np.float32)
    np.testing.assert_allclose(softmax(logits, 2.0), softmax(logits / 2))
    assert np.isfinite(softmax(np.array([[1e4, -1e4]], np.float32))).all()


def test_the_metadata_names_classes_and_origins(packaged: PyFuncModel, tmp_path: Path) -> None:
    metadata = packaged.metadata.metadata
    assert metadata["class_names"] == CLASSES
    assert metadata["superclass_of_class"] == [0, 1, 0]
    assert metadata["image_size"] == SIDE
    assert metadata["weights_sha256"] == sha256((tmp_path / "a-0" / "weights.safetensors").read_bytes()).hexdigest()
    assert metadata["metrics"]["val"]["top1"] == 0.5
    assert metadata["temperature"] == 1.0


def test_versions_with_different_code_work_side_by_side(
    make_entry: Callable[..., Entry], code: Path, tmp_path: Path
) -> None:
    make_entry().package.save(tmp_path / "old")
    file = code / "tiny" / "classifier.py"
    file.write_text(file.read_text().replace("FACTOR = 1", "FACTOR = -1"))
    make_entry().package.save(tmp_path / "new")
    old, new = load_model(str(tmp_path / "old")), load_model(str(tmp_path / "new"))
    expected = _expected(tmp_path, pictures(3))
    np.testing.assert_allclose(old.predict(pictures(3)), expected, atol=1e-6)
    opposite = (1 / expected) / (1 / expected).sum(1, keepdims=True)
    np.testing.assert_allclose(new.predict(pictures(3)), opposite, atol=1e-6)
    np.testing.assert_allclose(old.predict(pictures(3)), expected, atol=1e-6)


def test_a_version_loads_after_the_folder_its_code_first_came_from_is_gone(saved: Path, tmp_path: Path) -> None:
    load_model(str(saved))
    moved = shutil.move(saved, tmp_path / "elsewhere")
    assert load_model(str(moved)).predict(pictures(1)).shape == (1, 3)


def test_changed_code_is_refused(saved: Path) -> None:
    file = saved / "artifacts" / "classifiers" / "tiny" / "classifier.py"
    file.write_text(file.read_text() + "\nprint('other code')\n")
    with pytest.raises(MlflowException, match="changed after it was registered"):
        load_model(str(saved))


def test_planted_byte_code_does_not_run(saved: Path, tmp_path: Path) -> None:
    # Code of its own, so that no other test has imported it in this process.
    classifier = saved / "artifacts" / "classifiers" / "tiny" / "classifier.py"
    planted, witness = tmp_path / "planted.py", tmp_path / "it-ran"
    planted.write_text(f"open({str(witness)!r}, 'w')\n" + classifier.read_text())
    cache = classifier.parent / "__pycache__" / f"classifier.{sys.implementation.cache_tag}.pyc"
    py_compile.compile(str(planted), str(cache), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    _run_in_fresh_process(f"load_model({str(saved)!r}).predict(np.zeros((1, 4, 4, 3), np.uint8))")
    assert not witness.exists()


def test_damaged_weights_are_refused(saved: Path) -> None:
    weights = saved / "artifacts" / "model" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(MlflowException, match="damaged"):
        load_model(str(saved))


@pytest.mark.parametrize(
    ("plant", "reason"),
    [(bombs.as_weights, "no readable safetensors file"), (bombs.as_python_model, "pickle is disallowed")],
)
def test_a_planted_pickle_is_refused(saved: Path, bomb: Path, plant: Callable[[Path], None], reason: str) -> None:
    plant(saved)
    with pytest.raises(MlflowException, match=reason):
        load_model(str(saved))
    assert not bomb.exists()


def test_only_what_belongs_to_the_model_travels(make_entry: Callable[..., Entry], code: Path, tmp_path: Path) -> None:
    entry = make_entry()
    (tmp_path / "a-0" / "optimizer.pkl").write_bytes(b"")
    (code / "__pycache__").mkdir()
    (code / "__pycache__" / "errors.pyc").write_bytes(b"")
    entry.package.save(tmp_path / "package")
    artifacts = tmp_path / "package" / "artifacts"
    assert {file.name for file in (artifacts / "model").iterdir()} == {"classifier.json", "weights.safetensors"}
    assert {file.suffix for file in (artifacts / "classifiers").rglob("*") if file.is_file()} == {".py"}


def test_requirements_name_what_prediction_imports_and_nothing_else(code: Path) -> None:
    names = [requirement.split("==")[0] for requirement in requirements(code, "tiny")]
    assert names == ["mlflow", "numpy", "pandas", "pillow", "pydantic", "safetensors"]


@pytest.mark.parametrize(
    ("classifier", "needed", "not_needed"),
    [
        ("vit_scratch", {"torch"}, {"tensorflow", "keras", "lightning", "timm"}),
        ("vit_transfer", {"torch", "timm"}, {"tensorflow", "keras", "lightning", "huggingface-hub"}),
        ("mobilenet_transfer", {"keras", "tensorflow"}, {"torch", "lightning", "timm"}),
    ],
)
def test_each_model_requires_its_own_framework_only(classifier: str, needed: set[str], not_needed: set[str]) -> None:
    from stages import classifiers

    found = requirements(Path(classifiers.__file__).parent, classifier)
    names = {requirement.split("==")[0] for requirement in found}
    assert needed <= names
    assert not not_needed & names
    assert not [requirement for requirement in found if "+" in requirement], "local versions are in no index"


def _run_in_fresh_process(code: str) -> None:
    lines = "import numpy as np\nfrom mlflow.pyfunc import load_model\n" + textwrap.dedent(code)
    subprocess.run([sys.executable, "-W", "ignore", "-c", lines], check=True, cwd="/")


def test_the_signature_takes_pictures_of_any_size_and_how_many_answers(packaged: PyFuncModel) -> None:
    signature = packaged.metadata.signature
    [pictures_in], [answers_out] = signature.inputs.inputs, signature.outputs.inputs
    assert (pictures_in.type, pictures_in.shape) == (np.dtype(np.uint8), (-1, -1, -1, 3))
    assert (answers_out.type, answers_out.shape) == (np.dtype(np.float32), (-1, 3))
    assert [(param.name, param.default) for param in signature.params] == [("top_k", 0)]


def test_weights_of_another_training_are_refused(saved: Path, make_entry: Callable[..., Entry], tmp_path: Path) -> None:
    make_entry(seed=9).package.save(tmp_path / "other")
    shutil.copytree(tmp_path / "other" / "artifacts" / "model", saved / "artifacts" / "model", dirs_exist_ok=True)
    with pytest.raises(MlflowException, match="weights of this model are others than those that were registered"):
        load_model(str(saved))
