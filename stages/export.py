"""Stage `export`: a model as one ONNX file for each seed, checked against its framework; later stages run these."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from stages import models
from stages.common import paths
from stages.common.errors import UserError, one_line_errors
from stages.common.files import file_sha256, read_json, replacing_folder, write_json
from stages.data.dataset import Prepared
from stages.inference.exported import CHOSEN, DESCRIPTION
from stages.inference.onnx_model import OnnxModel
from stages.models import params
from stages.models.base import OPSET
from stages.models.onnx_export import onnx_graph, quantization

FLOAT32 = "model.onnx"
MAX_DIFFERENCE = 1e-3  # of a logit, between the framework and the runtime
MAX_CHANGED = 1e-3  # share of the validation images whose top-1 class may differ
LIBRARIES = ("onnx", "onnxruntime", "onnxscript", "openvino", "tensorflow", "tf2onnx", "torch")


def main() -> None:
    name, settings = params.read_for_model(__doc__)
    compute = settings.compute.on_cpu
    models.classifier_class(settings.model(name).classifier).configure(compute)
    prepared = Prepared.open(paths.PREPARED)
    _, labels = prepared.split("val")
    seeds = sorted(int(folder.name) for folder in (paths.MODELS / name).glob("*") if folder.name.isdecimal())
    if not seeds:
        raise UserError(f"{paths.MODELS / name} holds no trained model: run `dvc repro train@{name}`")
    with replacing_folder(paths.ONNX / name) as folder:
        descriptions, val_top1 = {}, {}
        for seed in seeds:
            (folder / str(seed)).mkdir()
            descriptions[seed], logits = write(name, seed, folder / str(seed), prepared, compute.cpu_threads)
            val_top1[seed] = float((logits.argmax(axis=1) == labels).mean())
        chosen = max(seeds, key=lambda seed: val_top1[seed])  # of equals the first
        for seed, description in descriptions.items():
            method = settings.export.int8.get(name) if seed == chosen else None
            add_int8(description, folder / str(seed), method, settings.export.serve, prepared, compute.cpu_threads)
            write_json(folder / str(seed) / DESCRIPTION, description)
        write_json(folder / CHOSEN, {"seed": chosen, "val_top1": {str(seed): top1 for seed, top1 in val_top1.items()}})
    if len(seeds) > 1:
        shown = ", ".join(f"{top1:.2%} of seed {seed}" for seed, top1 in val_top1.items())
        print(f"{name}: seed {chosen} has the highest top-1 on validation ({shown}): it goes on")


def write(name: str, seed: int, folder: Path, prepared: Prepared, threads: int) -> tuple[dict[str, Any], np.ndarray]:
    """Write one training as FLOAT32 into `folder`; returns what is known of it, and its logits on validation.

    UserError where they are not those of the trained network.
    """
    trained = paths.MODELS / name / str(seed)
    classifier = models.load(trained)
    images, _ = prepared.split("val")
    expected = classifier.logits(images)  # before the export, which a classifier does not survive
    saved = read_json(trained / models.DESCRIPTION, f"run `dvc repro train@{name}`")
    description = {
        "model": name,
        "seed": seed,
        "weights_sha256": saved["weights_sha256"],
        "image_size": classifier.image_size,
        "num_classes": classifier.num_classes,
        "num_parameters": classifier.num_parameters,
        "multiply_adds": classifier.multiply_adds(),
    }
    file = folder / FLOAT32
    onnx_graph.write(classifier.onnx_graph(), file)
    logits = OnnxModel(file, threads).logits(images)
    parity = measure_parity(expected, logits)
    print(
        f"{name}, seed {seed}: {FLOAT32} of {file.stat().st_size / 1e6:.1f} MB; on {parity['n']:,} validation images "
        f"its logits differ from the framework's by {parity['max_difference']:.1e} at most, top-1 agrees on "
        f"{parity['top1_agreement']:.2%}"
    )
    check_parity(name, parity)
    return description | {"parity": parity}, logits


def add_int8(
    description: dict[str, Any],
    folder: Path,
    method: quantization.Method | None,
    serve: quantization.Serve,
    prepared: Prepared,
    threads: int,
) -> None:
    """Write the int8 copy beside FLOAT32, if there is to be one; note files, and which is served, in `description`."""
    files, int8 = {"float32": folder / FLOAT32}, None
    if method:
        files["int8"] = folder / "model.int8.onnx"
        int8 = quantization.write_int8(files["float32"], files["int8"], method, serve, prepared, threads)
        print(f"{description['model']}: {int8['reason']}")
    description |= {
        "serves": int8["serves"] if int8 else "float32",
        "files": {
            precision: {"file": written.name, "sha256": file_sha256(written)} for precision, written in files.items()
        },
        "int8": int8,
        "opset": OPSET,
        "versions": {library: version(library) for library in LIBRARIES},
    }


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
