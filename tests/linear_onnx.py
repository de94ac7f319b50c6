"""The smallest ONNX classifier: a linear layer on the pixels, with weights that a test chooses."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def write(file: Path, weights: np.ndarray, bias: np.ndarray | None = None) -> Path:
    """Write a model of images (N, S, S, 3) uint8 whose logits are pixels (N, S*S*3), 0 to 255, @ weights + bias.

    weights: (S*S*3, C); bias: (C,). Returns the file.
    """
    side = round((len(weights) / 3) ** 0.5)
    assert side * side * 3 == len(weights)
    bias = np.zeros(weights.shape[1]) if bias is None else bias
    constants = {
        "shape": np.array([-1, len(weights)], np.int64),
        "weights": weights.astype(np.float32),
        "bias": bias.astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["pixels", "shape"], ["rows"]),
        helper.make_node("Gemm", ["rows", "weights", "bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", side, side, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", weights.shape[1]])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    file.write_bytes(model.SerializeToString(deterministic=True))
    return file


def of_colours(file: Path, colours: np.ndarray, side: int = 8) -> Path:
    """Write a model that names the nearest of some colours, (C, 3) from 0 to 255, to an image's mean colour."""
    colours = np.asarray(colours, np.float64)
    per_pixel = np.tile(colours.T, (side * side, 1)) / side**2  # mean colour @ colours.T
    sharpness = 1 / 255
    return write(file, sharpness * per_pixel, -sharpness * (colours**2).sum(axis=1) / 2)
