"""Stage `export`: one trained model as one ONNX file, checked against its framework; everything later runs it."""

import json
from importlib.metadata import version
from typing import Any

import numpy as np

from stages import models
from stages.common import paths
from stages.common.errors import UserError, one_line_errors
from stages.common.files import file_sha256, read_json, replacing_folder
from stages.data.dataset import Prepared
from stages.inference.exported import DESCRIPTION
from stages.inference.onnx_model import OnnxModel
from stages.models import params
from stages.models.base import OPSET
from stages.models.onnx_export import onnx_graph, quantization

MAX_DIFFERENCE = 1e-3  # of a logit, between the framework and the runtime
MAX_CHANGED = 1e-3  # share of the validation images whose top-1 class may differ
LIBRARIES = ("onnx", "onnxruntime", "onnxscript", "openvino", "tensorflow", "tf2onnx", "torch")


def main() -> None:
    name, settings = params.read_for_model(__doc__)
    compute = settings.compute.on_cpu
    models.classifier_class(settings.model(name).classifier).configure(compute)
    classifier = models.load(paths.MODELS / name)
    prepared = Prepared.open(paths.PREPARED)

    images, _ = prepared.split("val")
    expected = classifier.logits(images)  # before the export, which a classifier does not survive
    saved = read_json(paths.MODELS / name / models.DESCRIPTION, f"run `dvc repro train@{name}`")
    description = {
        "model": name,
        "weights_sha256": saved["weights_sha256"],
        "image_size": classifier.image_size,
        "num_classes": classifier.num_classes,
        "num_parameters": classifier.num_parameters,
        "multiply_adds": classifier.multiply_adds(),
    }
    with replacing_folder(paths.ONNX / name) as folder:
        file = folder / "model.onnx"
        onnx_graph.write(classifier.onnx_graph(), file)
        parity = measure_parity(expected, OnnxModel(file, compute.cpu_threads).logits(images))
        print(
            f"{name}: model.onnx of {file.stat().st_size / 1e6:.1f} MB; on {parity['n']:,} validation images its "
            f"logits differ from the framework's by {parity['max_difference']:.1e} at most, top-1 agrees on "
            f"{parity['top1_agreement']:.2%}"
        )
        check_parity(name, parity)
        files, int8 = {"float32": file}, None
        if method := settings.export.int8.get(name):
            files["int8"] = folder / "model.int8.onnx"
            int8 = quantization.write_int8(
                file, files["int8"], method, settings.export.serve, prepared, compute.cpu_threads
            )
            print(f"{name}: {int8['reason']}")
        description |= {
            "serves": int8["serves"] if int8 else "float32",
            "files": {
                precision: {"file": written.name, "sha256": file_sha256(written)}
                for precision, written in files.items()
            },
            "int8": int8,
            "opset": OPSET,
            "parity": parity,
            "versions": {library: version(library) for library in LIBRARIES},
        }
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def measure_parity(expected: np.ndarray, logits: np.ndarray) -> dict[str, Any]:
    """How far two models' logits (N, C) for the same images are apart."""
    difference = np.abs(expected.astype(np.float64) - logits)
    return {
        "n": len(expected),
        "max_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
        "top1_agreement": float((expected.argmax(1) == logits.argmax(1)).mean()),
    }


def check_parity(name: str, parity: dict[str, Any]) -> None:
    """UserError where the logits of the exported file are not those of the trained network."""
    changed = 1 - parity["top1_agreement"]
    if not (parity["max_difference"] <= MAX_DIFFERENCE and changed <= MAX_CHANGED):  # a logit that is no number, too
        raise UserError(
            f"{name}: model.onnx does not match the trained network: on {parity['n']:,} validation images its logits "
            f"differ by up to {parity['max_difference']:.2g} (at most {MAX_DIFFERENCE:g} is allowed) and top-1 on "
            f"{changed:.2%} (at most {MAX_CHANGED:.1%}): report this with the versions of "
            f"{', '.join(f'{library} {version(library)}' for library in LIBRARIES)}"
        )


if __name__ == "__main__":
    with one_line_errors("export"):
        main()
