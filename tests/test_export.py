"""From trained networks to ONNX files: the same predictions, the same bytes, no framework needed any more."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from stages import export
from stages.common.errors import UserError
from stages.inference.onnx_model import OnnxModel
from stages.models.base import Classifier
from stages.models.onnx_export import onnx_graph
from tests.models import small

ROOT = Path(__file__).parents[1]


def classifier_of(model: str) -> Classifier:
    """A small network that upsamples, whose predictions differ from image to image."""
    upsampled = {} if model == "vit_scratch" else {"image_size": 64}
    classifier = small.classifier(model, seed=3, num_classes=7, **upsampled)
    if model == "mobilenet_transfer":
        import keras

        # With initial weights every image gets the same logits, unless normalised by what these images give.
        for layer in classifier.network._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable, layer.momentum = True, 0.0
        classifier.network(images(50), training=True)
    else:
        import torch

        head = classifier.body.head
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(np.random.default_rng(0).normal(size=head.weight.shape)))
    return classifier


def images(count: int) -> np.ndarray:
    """Noise in many tints, (count, 32, 32, 3) uint8."""
    rng = np.random.default_rng(5)
    return (rng.integers(0, 256, (count, 1, 1, 3)) * rng.random((count, 32, 32, 3))).astype(np.uint8)


@pytest.fixture(scope="module", params=list(small.SMALL))
def exported(request, tmp_path_factory) -> tuple[str, np.ndarray, Path]:
    """A model's name, the logits of its framework for `images(50)`, and the ONNX file."""
    classifier = classifier_of(request.param)
    expected = classifier.logits(images(50))
    assert len(set(expected.argmax(axis=1))) > 1
    file = tmp_path_factory.mktemp("onnx") / "model.onnx"
    onnx_graph.write(classifier.onnx_graph(), file)
    return request.param, expected, file


def test_every_runtime_gives_the_logits_of_the_framework_in_any_batch(exported):
    model, expected, file = exported
    network, tolerance = OnnxModel(file), 1e-4 * max(1, np.abs(expected).max())
    parity = export.measure_parity(expected, network.logits(images(50)))
    assert parity["max_difference"] < tolerance
    assert parity["top1_agreement"] == 1
    export.check_parity(model, parity)
    alone = np.concatenate([network.logits(image[np.newaxis]) for image in images(50)])
    np.testing.assert_allclose(alone, network.logits(images(50)), atol=1e-5)
    [of_another_runtime] = onnxruntime.InferenceSession(file).run(None, {"images": images(50)})
    np.testing.assert_allclose(of_another_runtime, expected, atol=tolerance)


def test_the_graph_is_valid_takes_any_batch_and_holds_standard_operators_only(exported):
    _, _, file = exported
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    [taken], [given] = model.graph.input, model.graph.output
    assert (taken.name, given.name) == ("images", "logits")
    shape = [dimension.dim_param or dimension.dim_value for dimension in taken.type.tensor_type.shape.dim]
    assert (shape, taken.type.tensor_type.elem_type) == (["N", 32, 32, 3], onnx.TensorProto.UINT8)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]
    assert "Resize" not in {node.op_type for node in model.graph.node}  # on which runtimes disagree
    for machine in (str(ROOT).encode(), b"site-packages"):
        assert machine not in file.read_bytes()


def test_the_same_weights_give_the_same_bytes_in_any_process(exported, tmp_path):
    model, _, file = exported
    code = (
        "import sys; from pathlib import Path; from stages.models.onnx_export import onnx_graph; "
        "from tests.test_export import classifier_of; "
        # Another export before it: exporters count through a process.
        f"[onnx_graph.write(classifier_of({model!r}).onnx_graph(), Path(sys.argv[1])) for _ in range(2)]"
    )
    again = tmp_path / "again.onnx"
    subprocess.run([sys.executable, "-c", code, str(again)], cwd=ROOT, check=True, capture_output=True)
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"max_difference": 0.0011}, "differ by up to 0.0011"),
        ({"top1_agreement": 0.9984}, "top-1 on 0.16%"),
        ({"max_difference": float("nan")}, "differ by up to nan"),
    ],
)
def test_a_file_that_does_not_match_stops_with_one_line(change, told):
    parity = {"n": 5000, "max_difference": 0.0009, "mean_difference": 1e-6, "top1_agreement": 0.9992}
    export.check_parity("a", parity)
    with pytest.raises(UserError, match=r"model\.onnx does not match the trained network") as raised:
        export.check_parity("a", parity | change)
    assert told in str(raised.value)
    assert "5,000" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_parity_counts_what_differs():
    expected = np.array([[0.0, 1.0], [2.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
    found = np.array([[0.0, 1.5], [2.0, 0.0], [3.25, 3.0], [1.0, 0.0]])
    parity = {"n": 4, "max_difference": 3.25, "mean_difference": 3.75 / 8, "top1_agreement": 0.75}
    assert export.measure_parity(expected, found) == parity


def test_operators_of_a_runtime_are_refused(tmp_path):
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("FusedMatMul", ["images", "images"], ["logits"], domain="com.microsoft")],
        "g",
        [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["N", 3])],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 3])],
    )
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("com.microsoft", 1)]
    with pytest.raises(UserError, match="not valid ONNX .*com.microsoft"):
        onnx_graph.write(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
