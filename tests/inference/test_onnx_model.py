"""The code that is packaged: an ONNX file, its predictions with names, and what it refuses."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from stages.inference.onnx_model import BATCH, COLUMNS, ImageClassifier, OnnxModel, ood_scores
from tests import linear_onnx

SIDE = 4
METADATA = {
    "class_names": ["apple", "bear", "clock"],
    "superclass_names": ["thing", "being"],
    "superclass_of_class": [0, 1, 0],
    "temperature": 1.0,
    "conformal": {"90": 0.81, "95": 1.0},
    "ood": {"score": "probability", "threshold": 0.5, "reason": None},
    "square": "crop",
}


def images(count: int, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(SIDE * SIDE * 3, 3)).astype(np.float32) / 1000


@pytest.fixture(scope="module")
def network(tmp_path_factory, weights) -> OnnxModel:
    return OnnxModel(linear_onnx.write(tmp_path_factory.mktemp("onnx") / "model.onnx", weights), threads=1)


@pytest.fixture(scope="module")
def colours(tmp_path_factory) -> ImageClassifier:
    """Tells red, green and blue."""
    file = linear_onnx.of_colours(tmp_path_factory.mktemp("onnx") / "model.onnx", 255 * np.eye(3), side=8)
    return ImageClassifier(OnnxModel(file, threads=1), METADATA)


def test_a_network_says_its_size_and_gives_the_logits_of_the_file(network, weights):
    assert (network.image_size, network.num_classes) == (SIDE, 3)
    expected = images(5).reshape(5, -1).astype(np.float32) @ weights
    np.testing.assert_allclose(network.logits(images(5)), expected, atol=1e-4)
    assert network.logits(images(0)).shape == (0, 3)


def test_logits_do_not_depend_on_the_batch_they_were_computed_in(network):
    many = images(2 * BATCH + 3)
    one_by_one = np.concatenate([network.logits(image[np.newaxis]) for image in many])
    np.testing.assert_allclose(network.logits(many), one_by_one, atol=1e-5)


@pytest.mark.parametrize("content", [b"", b"no model", None])
def test_a_file_that_is_no_model_is_one_line(tmp_path, content):
    file = tmp_path / "model.onnx"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.onnx is no ONNX model of an image classifier") as raised:
        OnnxModel(file)
    assert "\n" not in str(raised.value)


def test_an_image_that_is_not_square_is_cropped_or_padded_the_same_everywhere(colours):
    # Green between red and blue: the centre is green, all of it is no colour of its own.
    image = np.zeros((1, 20, 60, 3), np.uint8)
    image[:, :, :20, 0] = image[:, :, 20:40, 1] = image[:, :, 40:, 2] = 255
    cropped = colours.prepare(image)
    assert cropped.shape == (1, 8, 8, 3)
    assert (cropped == [0, 255, 0]).all()
    padded = colours.prepare(image, "pad")[0]
    assert (padded[0] == 255).all()
    assert (padded[-1] == 255).all()
    assert (padded[4, 0] == [255, 0, 0]).all()
    assert (padded[4, -1] == [0, 0, 255]).all()
    asked_to_pad = ImageClassifier(colours.network, METADATA | {"square": "pad"})
    assert (asked_to_pad.prepare(image)[0] == padded).all()


def test_shrinking_averages_areas_and_leaves_the_trained_size_alone(colours):
    checkers = np.zeros((1, 16, 16, 3), np.uint8)
    checkers[:, ::2, ::2] = checkers[:, 1::2, 1::2] = 200
    assert (colours.prepare(checkers) == 100).all()
    same = images(2, 8, 8)
    assert colours.prepare(same) is same


def test_probabilities_are_calibrated_by_the_temperature(colours):
    red = np.zeros((1, 8, 8, 3), np.uint8)
    red[..., 0] = 255
    logits = colours.network.logits(red).astype(np.float64)
    np.testing.assert_allclose(logits, [[127.5, -127.5, -127.5]], rtol=1e-4)
    flat = ImageClassifier(colours.network, METADATA | {"temperature": 100.0}).probabilities(red)
    powers = np.exp(logits / 100)
    np.testing.assert_allclose(flat, powers / powers.sum(), rtol=1e-5)
    assert colours.probabilities(red)[0, 0] == 1


def test_classes_join_a_prediction_set_until_enough_is_together(colours):
    probabilities = np.array([[0.1, 0.75, 0.15], [0.85, 0.1, 0.05], [0.4, 0.2, 0.4]], np.float32)
    assert colours.prediction_sets(probabilities) == [["bear", "clock"], ["apple"], ["apple", "clock", "bear"]]
    assert [len(names) for names in colours.prediction_sets(probabilities, "95")] == [3, 3, 3]


def test_a_threshold_of_one_admits_every_class_although_sums_are_rounded(colours):
    hundred = {"class_names": list(map(str, range(100))), "superclass_of_class": [0] * 100, "conformal": {"90": 1.0}}
    many = ImageClassifier(colours.network, METADATA | hundred)
    probabilities = np.random.default_rng(0).dirichlet(np.full(100, 0.01), 500).astype(np.float32)
    assert (probabilities.astype(np.float64).sum(axis=1) > 1).any()
    assert {len(names) for names in many.prediction_sets(probabilities)} == {100}


def test_rows_name_the_likeliest_classes_of_each_image(colours):
    probabilities = np.array([[0.1, 0.75, 0.15], [0.46, 0.36, 0.18]], np.float32)
    rows = colours.rows(np.log(probabilities), 2)
    assert tuple(rows.columns) == COLUMNS
    assert rows[["image", "rank", "class", "superclass"]].values.tolist() == [
        [0, 1, "bear", "being"],
        [0, 2, "clock", "thing"],
        [1, 1, "apple", "thing"],
        [1, 2, "bear", "being"],
    ]
    assert rows["out_of_distribution"].tolist() == [False, False, True, True]
    assert rows["prediction_set"][3] == ["apple", "bear"]  # together they have 0.82, more than the threshold
    unsure = ImageClassifier(
        colours.network,
        METADATA | {"ood": {"score": "energy", "threshold": None, "reason": "AUROC 0.43 on far images"}},
    )
    assert unsure.rows(np.log(probabilities), 1)["out_of_distribution"].tolist() == [None, None]


@pytest.mark.parametrize("name", ["probability", "logit", "energy", "entropy"])
def test_an_image_is_flagged_where_the_score_of_the_version_is_below_its_threshold(colours, name):
    logits = np.array([[9, 0, 0], [0, 0.1, 0], [700, 699, 0]], np.float32)
    powers = np.exp(logits.astype(float))  # up to 1e304, as far as they reach
    shares = powers / powers.sum(axis=1, keepdims=True)
    expected = {
        "probability": shares.max(axis=1),
        "logit": logits.max(axis=1),
        "energy": np.log(powers.sum(axis=1)),
        "entropy": np.sum(shares * np.log(np.maximum(shares, 1e-300)), axis=1),
    }[name]
    np.testing.assert_allclose(ood_scores(logits)[name], expected, rtol=1e-5, atol=1e-6)
    threshold = float(np.median(expected))
    classifier = ImageClassifier(colours.network, METADATA | {"ood": {"score": name, "threshold": threshold + 1e-4}})
    flagged = [score < threshold + 1e-4 for score in expected]
    assert classifier.rows(logits, 1)["out_of_distribution"].tolist() == flagged
    assert sum(flagged) == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((1, 8, 8, 3)), "must be a uint8 array"),
        (np.zeros((8, 8, 3), np.uint8), "must be"),
        (np.zeros((1, 8, 8, 4), np.uint8), "must be"),
        (np.zeros((1, 0, 8, 3), np.uint8), "with pixels"),
        ([[[[0.5, 0, 0]]]], "whole numbers from 0 to 255"),
        ([[[[256, 0, 0]]]], "whole numbers from 0 to 255"),
        ([[[[True, False, True]]]], "whole numbers"),
        ([[[["a", "b", "c"]]]], "whole numbers"),
        ([[[[float("nan"), 0, 0]]]], "whole numbers"),
        ([[[[0, 0, 0]]], [[[0, 0, 0], [0, 0, 0]]]], "of one size"),
        ([], "with pixels|must be"),
    ],
)
def test_what_is_no_image_is_refused_with_a_reason(colours, wrong, message):
    with pytest.raises(ValueError, match=message):
        colours.probabilities(wrong)


def test_unknown_rules_and_numbers_of_classes_are_refused(colours):
    with pytest.raises(ValueError, match="square = 'stretch': choose one of crop, pad"):
        colours.prepare(images(1), "stretch")
    with pytest.raises(ValueError, match="top_k = 4: ask for 1 to 3 classes"):
        colours.rows(np.full((1, 3), 1 / 3), 4)


def test_the_packaged_code_is_short_and_of_five_libraries():
    source = (Path(__file__).parents[2] / "stages/inference/onnx_model.py").read_text()
    assert len(source.splitlines()) <= 245
    imported = re.findall(r"^\s*(?:import|from) (\w+)", source, re.MULTILINE)
    assert set(imported) - set(sys.stdlib_module_names) == {"numpy", "pandas", "PIL", "openvino", "mlflow"}
