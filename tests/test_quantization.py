"""int8 copies: which layers they round, what is measured of them, and which file is served."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from stages import export
from stages.common import paths
from stages.common.errors import UserError
from stages.inference.exported import Exported, chosen
from stages.inference.onnx_model import OnnxModel
from stages.models import params
from stages.models.onnx_export import onnx_graph, quantization

from . import linear_onnx

ROOT = Path(__file__).parents[1]
SIDE, CLASSES = 8, 10


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def network(file: Path, seed: int = 0) -> Path:
    """A linear network with logits of a few units."""
    return linear_onnx.write(file, np.random.default_rng(seed).normal(0, 0.001, (SIDE * SIDE * 3, CLASSES)))


@pytest.fixture
def prepared():
    """600 training images of several brightnesses; 200 to validate on, four fifths labelled as network() has them."""

    def split(name: str) -> tuple[np.ndarray, np.ndarray]:
        if name == "train":
            brightness = np.linspace(0.9, 1, 600)[:, np.newaxis, np.newaxis, np.newaxis]
            return (images(600) * brightness).astype(np.uint8), np.zeros(600, np.int64)
        pixels = images(200, seed=1)
        weights = np.random.default_rng(0).normal(0, 0.001, (SIDE * SIDE * 3, CLASSES))
        labels = (pixels.reshape(len(pixels), -1) @ weights).argmax(axis=1)
        labels[::5] = (labels[::5] + 1) % CLASSES
        return pixels, labels

    return SimpleNamespace(split=split)


@pytest.mark.parametrize("method", ["static", "dynamic"])
def test_a_copy_has_weights_of_a_byte_nearly_the_same_logits_and_the_same_bytes_in_any_process(tmp_path, method):
    file, target = network(tmp_path / "model.onnx"), tmp_path / "model.int8.onnx"
    quantization.quantize(file, target, method, images(64))
    graph = onnx.load(target)
    onnx.checker.check_model(graph, full_check=True)
    assert {node.domain for node in graph.graph.node} == {""}
    assert (graph.producer_name, list(graph.metadata_props)) == (onnx_graph.PRODUCER, [])
    [weights] = [tensor for tensor in graph.graph.initializer if np.prod(tensor.dims) == SIDE * SIDE * 3 * CLASSES]
    assert weights.data_type == TensorProto.INT8
    assert target.stat().st_size < 0.6 * file.stat().st_size
    pixels = images(50, seed=2)
    expected = OnnxModel(file, 1).logits(pixels)
    logits = OnnxModel(target, 1).logits(pixels)
    assert 0 < np.abs(logits - expected).max() < 0.02 * np.ptp(expected)
    [of_another_runtime] = onnxruntime.InferenceSession(target).run(None, {"images": pixels})
    assert np.abs(of_another_runtime - expected).max() < 0.02 * np.ptp(expected)
    program = (
        "import sys; from pathlib import Path; from stages.models.onnx_export import quantization; "
        "from tests.test_quantization import images; "
        "quantization.quantize(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], images(64))"
    )
    command = [sys.executable, "-c", program, str(file), str(tmp_path / "again.onnx"), method]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert target.read_bytes() == (tmp_path / "again.onnx").read_bytes()


def test_each_output_channel_has_a_scale_of_its_own_and_only_the_pixels_are_rounded(tmp_path):
    weights = np.random.default_rng(0).normal(0, 0.001, (SIDE * SIDE * 3, 2)) * [1, 1e-4]
    file, target = linear_onnx.write(tmp_path / "model.onnx", weights), tmp_path / "model.int8.onnx"
    quantization.quantize(file, target, "static", images(64))
    expected, logits = (OnnxModel(each, 1).logits(images(50, seed=2))[:, 1] for each in (file, target))
    assert np.abs(logits - expected).max() < 0.02 * np.ptp(expected)
    assert [node.op_type for node in onnx.load(target).graph.node].count("QuantizeLinear") == 1


def test_static_activations_are_rounded_within_the_mean_range_of_the_batches(tmp_path):
    file, target = network(tmp_path / "model.onnx"), tmp_path / "model.int8.onnx"
    dark, bright = (np.minimum(images(quantization.CALIBRATION_BATCH), highest) for highest in (100, 200))
    quantization.quantize(file, target, "static", np.concatenate([dark, bright]))
    pixels = np.full((3, SIDE, SIDE, 3), [[[[140]]], [[[150]]], [[[255]]]], np.uint8)
    inside, end, outside = OnnxModel(target, 1).logits(pixels)
    assert np.abs(end - outside).max() < 1e-6 < np.abs(end - inside).max()


def test_int8_takes_weights_with_many_inputs_after_the_upsampling():
    shapes = {
        ("MatMul", "upsample"): (128, 128),  # before the first convolution
        ("Conv", "few"): (16, 3, 3, 3),
        ("Conv", "depthwise"): (256, 1, 5, 5),
        ("Conv", "pointwise"): (32, 128, 1, 1),
        ("MatMul", "attention"): None,  # computed
        ("MatMul", "wide"): (192, 10),
        ("MatMul", "narrow"): (96, 10),
        ("Gemm", "transposed"): (10, 192),
        ("Gemm", "as it is"): (10, 192),
    }
    nodes = [
        helper.make_node(kind, ["x", name], [f"{name}_out"], name=name, **{"transB": 1} if name == "transposed" else {})
        for kind, name in shapes
    ]
    stored = [(name, shape) for (_, name), shape in shapes.items() if shape]
    tensors = [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in stored]
    assert quantization.layers(helper.make_graph(nodes, "g", [], [], tensors)) == ["pointwise", "wide", "transposed"]
    del nodes[1:4]
    assert quantization.layers(helper.make_graph(nodes, "g", [], [], tensors))[0] == "upsample"


def test_a_network_without_a_layer_worth_it_is_refused(tmp_path):
    file = linear_onnx.of_colours(tmp_path / "model.onnx", [[0, 0, 0], [255, 255, 255]], side=4)
    with pytest.raises(UserError, match="model.onnx has no layer with 100 inputs or more: set its export.int8 to null"):
        quantization.quantize(file, tmp_path / "model.int8.onnx", "static", images(8))


def test_the_difference_is_that_of_int8_to_float32_on_the_same_images(tmp_path, prepared):
    pixels, labels = prepared.split("val")
    right, wrong = OnnxModel(network(tmp_path / "a.onnx"), 1), OnnxModel(network(tmp_path / "b.onnx", seed=9), 1)
    found = quantization.compare({"float32": right, "int8": wrong}, pixels, labels)
    assert found["n"] == 200
    assert found["float32"]["top1"] == pytest.approx(0.8)
    top1 = (wrong.logits(pixels).argmax(axis=1) == labels).mean()
    assert found["int8"]["top1"] == pytest.approx(top1)
    assert found["difference"] == pytest.approx(top1 - 0.8)
    assert found["low"] < found["difference"] < found["high"] < 0
    assert found["p_value"] < 1e-6
    assert found["int8"]["nll"] > found["float32"]["nll"]
    assert found["batch_difference"] == 0
    turned = quantization.compare({"float32": wrong, "int8": right}, pixels, labels)
    assert turned["difference"] == pytest.approx(0.8 - top1)
    assert 0 < turned["low"] < turned["difference"] < turned["high"]
    same = quantization.compare({"float32": right, "int8": right}, pixels, labels)
    assert (same["difference"], same["low"], same["high"], same["p_value"]) == (0, 0, 0, 1)


def test_logits_that_depend_on_the_batch_are_found(tmp_path):
    file, target = network(tmp_path / "model.onnx"), tmp_path / "model.int8.onnx"
    quantization.quantize(file, target, "dynamic", images(0))
    pixels = images(200) // np.linspace(1, 20, 200).astype(np.uint8)[:, None, None, None]
    networks = {"float32": OnnxModel(file, 1), "int8": OnnxModel(target, 1)}
    assert quantization.compare(networks, pixels, np.zeros(200, np.int64))["batch_difference"] > 1e-4


def judged(low=-0.002, latency=1.5, throughput=2.0, batch_difference=0.0):
    """What compare() would find of an int8 copy so many times as fast as a network of 10 ms and 100 images a second."""
    return {
        **{"n": 5000, "difference": low + 0.003, "low": low, "high": low + 0.006, "p_value": 0.5},
        "batch_difference": batch_difference,
        "float32": {"latency_p50_ms": 10.0, "throughput_images_per_second": 100.0},
        "int8": {"latency_p50_ms": 10.0 / latency, "throughput_images_per_second": 100.0 * throughput},
    }


@pytest.mark.parametrize(
    ("serve", "found", "serves", "reason"),
    [
        ("auto", {}, "int8", "(95 % interval of the difference -0.20 to +0.40), at 1.50 times the speed"),
        ("auto", {"low": -0.0049}, "int8", "-0.49 to"),
        ("auto", {"low": -0.0051}, "float32", "int8 may lose more than 0.5 points of top-1"),
        ("auto", {"latency": 1.0, "throughput": 1.2}, "int8", "1.20 times in batches"),
        ("auto", {"latency": 1.2, "throughput": 0.95}, "int8", "1.20 times the speed of float32 for one image"),
        ("auto", {"latency": 1.05, "throughput": 1.05}, "float32", "int8 is not faster here (1.05 times"),
        ("auto", {"latency": 2.0, "throughput": 0.8}, "float32", "int8 is not faster here (2.00 times"),
        ("auto", {"batch_difference": 0.5}, "float32", "int8 changes a logit by up to 0.5 with the batch"),
        ("int8", {"low": -0.5, "latency": 0.1}, "int8", "export.serve asks for it"),
        ("float32", {}, "float32", "export.serve asks for it"),
    ],
)
def test_int8_is_served_where_it_is_as_good_and_faster_or_asked_for(serve, found, serves, reason):
    chosen, text = quantization.decide(serve, judged(**found))
    assert chosen == serves
    assert text.startswith(f"{serves} is served: ")
    assert reason in text


def test_the_copy_is_calibrated_and_judged_with_what_it_was_made_of(tmp_path, prepared):
    file, target = network(tmp_path / "model.onnx"), tmp_path / "model.int8.onnx"
    found = quantization.write_int8(file, target, "static", "int8", prepared, threads=1)
    assert (found["method"], found["calibration_images"], found["serves"]) == ("static", 512, "int8")
    assert found["float32"]["top1"] == pytest.approx(0.8)
    assert found["int8"]["top1"] == pytest.approx(0.8, abs=0.1)
    assert found["int8"]["bytes"] == target.stat().st_size < found["float32"]["bytes"]
    assert found["hardware"]["threads"] == 1
    first = target.read_bytes()
    quantization.write_int8(file, target, "static", "auto", prepared, threads=1)
    assert target.read_bytes() == first
    assert quantization.write_int8(file, target, "dynamic", "int8", prepared, 1)["calibration_images"] == 0


@pytest.mark.parametrize("serve", ["int8", "float32"])
def test_export_goes_on_with_the_best_seed_its_copy_and_the_file_that_is_served(
    tmp_path, monkeypatch, prepared, serve, capsys
):
    settings = params.read(ROOT / "params.yaml")
    section = settings.export.model_copy(update={"serve": serve, "int8": {"vit_scratch": "static"}})
    monkeypatch.setattr(params, "read", lambda: settings.model_copy(update={"export": section}))
    monkeypatch.chdir(tmp_path)
    networks = {"3": 1, "5": 0, "12": 0}  # by seed; 0: right on four fifths
    for seed in networks:
        (paths.MODELS / "vit_scratch" / seed).mkdir(parents=True)
        (paths.MODELS / "vit_scratch" / seed / "classifier.json").write_text(json.dumps({"weights_sha256": seed}))

    def load(folder):
        origin = network(tmp_path / f"{folder.name}.onnx", networks[folder.name])
        return SimpleNamespace(
            logits=OnnxModel(origin, 1).logits,
            onnx_graph=lambda: onnx.load(origin),
            multiply_adds=lambda: 1,
            **{"image_size": SIDE, "num_classes": CLASSES, "num_parameters": 1},
        )

    monkeypatch.setattr(export.models, "load", load)
    monkeypatch.setattr(export.Prepared, "open", lambda folder: prepared)
    monkeypatch.setattr(sys, "argv", ["export", "vit_scratch"])
    export.main()
    found = chosen("vit_scratch")
    assert (found["seed"], found["val_top1"]["5"], list(found["val_top1"])) == (5, 0.8, ["3", "5", "12"])
    assert found["val_top1"]["3"] < 0.3
    for seed in (3, 12):
        other = Exported.open("vit_scratch", seed)
        assert (other.description["weights_sha256"], other.precision) == (str(seed), "float32")
        assert other.description["int8"] is None
        assert other.description["parity"]["n"] == len(other.load(1).logits(images(200)))
    exported = Exported.open("vit_scratch")
    assert (exported.seed, exported.description["weights_sha256"]) == (5, "5")
    names = {"float32": "model.onnx", "int8": "model.int8.onnx"}
    assert {precision: one["file"] for precision, one in exported.description["files"].items()} == names
    assert sorted(file.name for file in exported.file.parent.iterdir()) == ["export.json", *sorted(names.values())]
    assert (exported.precision, exported.file.name) == (serve, names[serve])
    logits = exported.load(1).logits(images(5))
    assert (logits == OnnxModel(exported.file.with_name(names[serve]), 1).logits(images(5))).all()
    assert exported.description["int8"]["serves"] == serve
    assert f"{serve} is served: export.serve asks for it" in capsys.readouterr().out
