"""An int8 copy of an exported network, and whether it is served in place of the float32 one."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import onnx
from onnxruntime import quantization as ort
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from stages.common import hardware
from stages.common.errors import UserError
from stages.data.dataset import Prepared
from stages.evaluation.calibration import expected_calibration_error, negative_log_likelihood
from stages.evaluation.cost import forward_seconds
from stages.evaluation.significance import compare_pairs
from stages.inference.onnx_model import OnnxModel
from stages.models.onnx_export import onnx_graph

Method = Literal["dynamic", "static"]
Serve = Literal["auto", "float32", "int8"]

LAYERS = ("Conv", "Gemm", "MatMul")
# Products that one output of a layer sums. Layers with fewer stay in float32: the first ones and MobileNet's depthwise
# convolutions lose most of the accuracy and gain no time.
MIN_INPUTS = 100
CALIBRATION_IMAGES = 512  # of training
CALIBRATION_BATCH = 16

# The rule `auto`.
MAX_LOSS = 0.005  # of top-1 on validation, that the 95 % interval must exclude
FASTER = 1.1  # times, for one image or in batches; and for neither slower by as much
MAX_BATCH_DIFFERENCE = 1e-5  # of a logit, between an image alone and the same in a batch

ROUNDS = 15
LATENCY_CALLS = 10  # a round
THROUGHPUT_BATCH = 64


def quantize(file: Path, target: Path, method: Method, images: np.ndarray) -> None:
    """Write `target`, the network of `file` with int8 weights (a scale for each channel) and 8-bit activations.

    static: scales of activations are constants, from training images (N, S, S, 3) uint8; the same images give the same
    bytes. dynamic: they come from each batch. UserError where no layer is worth it.
    """
    model = onnx.load(file)
    names = layers(model.graph)
    if not names:
        raise UserError(f"{file.name} has no layer with {MIN_INPUTS} inputs or more: set its export.int8 to null")
    add_pre_process_metadata(model)  # else the library warns: the graph is already as its preprocessing would leave it
    in_float = [node.name for node in model.graph.node if node.op_type in LAYERS and node.name not in names]
    settings: dict[str, Any] = {"op_types_to_quantize": list(LAYERS), "nodes_to_exclude": in_float, "per_channel": True}
    if method == "dynamic":
        ort.quantize_dynamic(model, target, weight_type=ort.QuantType.QInt8, **settings)
    else:
        starts = range(0, len(images), CALIBRATION_BATCH)
        batches = iter([{onnx_graph.INPUT: images[start : start + CALIBRATION_BATCH]} for start in starts])
        ort.quantize_static(
            model,
            target,
            SimpleNamespace(get_next=lambda: next(batches, None)),
            activation_type=ort.QuantType.QUInt8,
            weight_type=ort.QuantType.QInt8,
            # Ranges are the mean over batches of their extremes; sums leave a layer unrounded.
            extra_options={"CalibMovingAverage": True, "OpTypesToExcludeOutputQuantization": list(LAYERS)},
            **settings,
        )
    onnx_graph.write(onnx.load(target), target)


def layers(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes that int8 serves: with weights, and enough of them for each output.

    None before the first convolution, where there is one: matrices there upsample the image.
    """
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer if len(tensor.dims) > 1}
    nodes = [node for node in graph.node if node.op_type in LAYERS]
    first = next((place for place, node in enumerate(nodes) if node.op_type == "Conv"), 0)
    return [node.name for node in nodes[first:] if _inputs(node, shapes.get(node.input[1])) >= MIN_INPUTS]


def _inputs(node: onnx.NodeProto, weights: tuple[int, ...] | None) -> int:
    """How many products one output sums; weights: their shape, None where they are computed, as in attention."""
    if weights is None:
        return 0
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return int(np.prod(weights[1:])) if node.op_type == "Conv" or transposed else weights[-2]


def write_int8(
    file: Path, target: Path, method: Method, serve: Serve, prepared: Prepared, threads: int
) -> dict[str, Any]:
    """Write `target`, the int8 copy of the network in `file`, and judge it on the validation images.

    What export.json holds under int8: method, the figures of compare(), hardware, serves ("float32" or "int8") and the
    reason, a sentence.
    """
    train, _ = prepared.split("train")
    count = min(CALIBRATION_IMAGES, len(train))
    rows = np.sort(np.random.default_rng(0).choice(len(train), count, replace=False))
    quantize(file, target, method, train[rows])
    networks = {"float32": OnnxModel(file, threads), "int8": OnnxModel(target, threads)}
    found = compare(networks, *prepared.split("val"))
    for precision, origin in (("float32", file), ("int8", target)):
        found[precision]["bytes"] = origin.stat().st_size
    serves, reason = decide(serve, found)
    return {
        "method": method,
        "calibration_images": count if method == "static" else 0,
        **found,
        "hardware": {**hardware.describe(), "threads": threads},
        "serves": serves,
        "reason": reason,
    }


def compare(networks: Mapping[str, OnnxModel], images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """The networks float32 and int8 on the same images (N, S, S, 3) uint8 with labels (N,).

    For each: top1, nll and ece (of logits as they are), latency_p50_ms (one image), throughput_images_per_second (of
    64). difference, low, high: of top-1, int8 less float32, with its 95 % interval; p_value: of McNemar's exact test;
    batch_difference: the largest in an int8 logit, between an image alone and the same in a batch.
    """
    logits = {precision: network.logits(images) for precision, network in networks.items()}
    [pair] = compare_pairs({precision: rows.argmax(axis=1) == labels for precision, rows in logits.items()})
    int8 = pair.seen_from("int8")
    several = images[:THROUGHPUT_BATCH]
    alone = np.concatenate([networks["int8"].logits(image[np.newaxis]) for image in several])
    speeds = _speeds(networks, np.resize(several, (THROUGHPUT_BATCH, *images.shape[1:])))
    return {
        "n": len(labels),
        "difference": int8.difference,
        "low": int8.low,
        "high": int8.high,
        "p_value": int8.p_value,
        "batch_difference": float(np.abs(alone - logits["int8"][: len(several)]).max()),
        **{
            precision: {
                "top1": float((rows.argmax(axis=1) == labels).mean()),
                "nll": negative_log_likelihood(rows, labels),
                "ece": expected_calibration_error(rows, labels),
                **speeds[precision],
            }
            for precision, rows in logits.items()
        },
    }


def _speeds(networks: Mapping[str, OnnxModel], images: np.ndarray) -> dict[str, dict[str, float]]:
    """Medians. The networks take turns: what else the machine does meets them alike."""
    single: dict[str, list[float]] = {precision: [] for precision in networks}
    batches: dict[str, list[float]] = {precision: [] for precision in networks}
    for _ in range(ROUNDS):
        for precision, network in networks.items():
            # The first call is not measured: the caches hold the other network.
            single[precision] += forward_seconds(network.logits, images[:1], LATENCY_CALLS, warm_up=1)
            batches[precision] += forward_seconds(network.logits, images, repeats=1, warm_up=0)
    return {
        precision: {
            "latency_p50_ms": round(1e3 * float(np.median(single[precision])), 3),
            "throughput_images_per_second": round(len(images) / float(np.median(batches[precision])), 1),
        }
        for precision in networks
    }


def decide(serve: Serve, found: Mapping[str, Any]) -> tuple[str, str]:
    """Which of the two is served, "float32" or "int8", and why, in a sentence; found: of compare()."""
    if serve != "auto":
        return serve, f"{serve} is served: export.serve asks for it"
    latency = found["float32"]["latency_p50_ms"] / found["int8"]["latency_p50_ms"]
    throughput = found["int8"]["throughput_images_per_second"] / found["float32"]["throughput_images_per_second"]
    speed = f"{latency:.2f} times the speed of float32 for one image, {throughput:.2f} times in batches"
    loss = f"95 % interval of the difference {100 * found['low']:+.2f} to {100 * found['high']:+.2f}"
    reasons = []
    if found["low"] < -MAX_LOSS:
        reasons.append(f"may lose more than {100 * MAX_LOSS:g} points of top-1 ({loss})")
    if max(latency, throughput) < FASTER or min(latency, throughput) < 1 / FASTER:
        reasons.append(f"is not faster here ({speed})")
    if found["batch_difference"] > MAX_BATCH_DIFFERENCE:
        reasons.append(f"changes a logit by up to {found['batch_difference']:.2g} with the batch an image comes in")
    if reasons:
        return "float32", f"float32 is served: int8 {' and '.join(reasons)}"
    return "int8", f"int8 is served: it loses at most {100 * MAX_LOSS:g} points of top-1 ({loss}), at {speed}"
