"""What a registered version holds: the ONNX file, the code that runs it, metadata and requirements; its description."""

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.models import Model, ModelSignature
from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

from stages.common.files import json_sha256, write_arrays
from stages.inference import onnx_model
from stages.inference.exported import Exported

MODEL_ARTIFACT = "model"  # as the packaged code of onnx_model.py knows it
REFERENCE_ARTIFACT = "reference"  # likewise
MODEL_FILE = "model.onnx"  # whatever the precision
SEEN_IMAGES = "seen_images.npy"  # in a registered package: (N,) uint64, see registry.register
ADDED_BY_MLFLOW = "registered_model_meta"
LIBRARIES = ("mlflow", "numpy", "openvino", "pandas", "pillow")  # all that onnx_model.py imports
PACKAGE_SHA256 = "package_sha256"  # of the metadata: ONNX file, data, classes, thresholds, format; a tag, too
FILES_SHA256 = "files_sha256"  # tag: of all files of a version's package

_CARD = """\
Image classifier `{model}`, trained on {source}: {classes} classes in {superclasses} superclasses, one ONNX file in \
{precision} (sha256 {onnx_sha256:.12}), run on the CPU by OpenVINO.

- Input: images (N, H, W, 3) uint8, RGB, of any size. Those that are not square are {square}; all are brought to \
{image_size} px.
- Output: calibrated probabilities (N, {classes}) float32; with `params={{"top_k": k}}` a table: image, rank, class, \
superclass, probability, 90 % prediction set, out-of-distribution flag{no_flag}.
- Test top-1: {top1:.2%} (95 % interval {top1_low:.2%} to {top1_high:.2%}, n = {n_test:,}).

```python
model = mlflow.pyfunc.load_model("models:/{name}/{number}")
model.predict(images, params={{"top_k": 5}})
```"""
_SQUARE = {"crop": "cropped to their centre", "pad": "padded with white"}


@dataclass(frozen=True)
class Package:
    """A model to be packaged.

    example: one or two images (N, H, W, 3) uint8.
    about: what the metadata says beside what the export knows: source, data_sha256, class_names, superclass_names,
    superclass_of_class, and what ImageClassifier needs: square, temperature, conformal, ood.
    reference: of the score in about["ood"], where it needs one; it follows from what is in about and the ONNX file.
    metrics: as in reports/metrics/<model>.json; in the metadata, but no part of its identity.
    """

    exported: Exported
    example: np.ndarray
    about: Mapping[str, Any]
    metrics: Mapping[str, Any]
    reference: Mapping[str, np.ndarray] | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the version: its identity, the hash of that, and the metrics."""
        identity = {
            "format": onnx_model.FORMAT,
            "model": self.exported.model,
            **self.about,
            **{key: self.exported.description[key] for key in ("image_size", "weights_sha256")},
            "precision": self.exported.precision,
            "onnx_sha256": self.exported.sha256,
        }
        return {**identity, PACKAGE_SHA256: json_sha256(identity), "metrics": dict(self.metrics)}

    def card(self, name: str, number: str, n_test: int) -> str:
        """What version `number` of the registered model `name` is, as Markdown; n_test: images of the test split."""
        shown = {
            **self.metadata,
            **self.metrics["test"],
            "classes": len(self.about["class_names"]),
            "superclasses": len(self.about["superclass_names"]),
            "square": _SQUARE[self.about["square"]],
            "no_flag": f" (none is given: {reason})" if (reason := self.about["ood"]["reason"]) else "",
        }
        return _CARD.format(**shown, name=name, number=number, n_test=n_test)

    def save(self, folder: Path, mlflow_model: Model | None = None) -> None:
        """Write the package into `folder`, which must not exist; nothing is downloaded, and no model loaded or run.

        mlflow_model: carries the ids of the model and the run it will be logged to.
        UserError where the ONNX file is missing or was changed since its export.
        """
        with tempfile.TemporaryDirectory() as temporary:
            file = Path(temporary) / MODEL_FILE
            shutil.copy(self.exported.verified(), file)
            artifacts = {MODEL_ARTIFACT: str(file)}
            if self.reference:
                artifacts[REFERENCE_ARTIFACT] = str(file.with_name("ood_reference.npz"))
                write_arrays(Path(artifacts[REFERENCE_ARTIFACT]), self.reference)
            mlflow.pyfunc.save_model(
                path=str(folder),
                python_model=onnx_model.__file__,
                artifacts=artifacts,
                signature=_signature(len(self.about["class_names"])),
                input_example=self.example,
                pip_requirements=[f"{library}=={version(library)}" for library in LIBRARIES],
                metadata=self.metadata,
                mlflow_model=mlflow_model if mlflow_model is not None else Model(),
            )


def files_sha256(folder: Path) -> str:
    """Hash of all files of a package on disk, but for the one that MLflow adds when it fetches one."""
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    files.pop(ADDED_BY_MLFLOW, None)
    return contents_sha256(files)


def contents_sha256(files: Mapping[str, Path]) -> str:
    """Hash of files and the names they are given."""
    digest = hashlib.sha256()
    for name, file in sorted(files.items()):
        content = file.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def image_hashes(images: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) uint8 -> (N,) uint64, by which an image is known again; equal ones of 50,000 are no accident."""
    digests = (hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images)
    return np.frombuffer(b"".join(digests), dtype="<u8")


def _signature(num_classes: int) -> ModelSignature:
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, num_classes))]),
        params=ParamSchema([ParamSpec("top_k", DataType.long, 0), ParamSpec("square", DataType.string, "")]),
    )
    # MLflow then leaves the checks to the model. By itself it would cast what is served to uint8 before any look at it:
    # fractions cut off, an image with values between 0 and 1 all black.
    signature._is_signature_from_type_hint = True
    return signature
