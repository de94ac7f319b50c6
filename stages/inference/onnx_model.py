"""An ONNX file that classifies images, run by OpenVINO on the CPU, and its predictions, calibrated and labelled.

The pipeline imports this module. MLflow copies it into every registered version and runs the copy (models-from-code),
so it imports nothing of this project: what is measured, registered and served is one file of weights and this one.
"""

import hashlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pandas as pd
from PIL import Image, ImageOps

FORMAT = 3  # of a version's metadata and of what it predicts; another one cannot be run by the app of this one
BATCH = 16  # images in one call of the runtime: what fits the caches of a CPU; bounds memory, too
SQUARES = ("crop", "pad")
COLUMNS = ("image", "rank", "class", "superclass", "probability", "prediction_set", "out_of_distribution")


class OnnxModel:
    """A network in an ONNX file: images (N, S, S, 3) uint8 to logits (N, C) float32. Threads may share it.

    threads: of the CPU; None: one per core that this process may use. ValueError where the file is no such network.
    """

    def __init__(self, file: str | Path, threads: int | None = None) -> None:
        # All threads on one call; not pinned, or two processes would share the same cores.
        settings = {"INFERENCE_NUM_THREADS": threads or 0, "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
        settings["INFERENCE_PRECISION_HINT"] = "f32"  # left alone, processors with bfloat16 would round to it
        try:
            onnx = openvino.frontend.FrontEndManager().load_by_framework("onnx")  # no other reader sees the file
            compiled = openvino.Core().compile_model(onnx.convert(onnx.load(Path(file))), "CPU", settings)
            self.image_size = compiled.input().partial_shape[1].get_length()
            self.num_classes = compiled.output().partial_shape[1].get_length()
        except Exception as error:  # of several kinds, without a common one
            reason = " ".join(str(error).split())
            raise ValueError(f"{file} is no ONNX model of an image classifier ({reason})") from None
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()  # a request serves one call at a time; one call takes all cores anyway

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits (N, C) float32 of images (N, S, S, 3) uint8, whatever the batch they come in."""
        logits = np.empty((len(images), self.num_classes), np.float32)
        for start in range(0, len(images), BATCH):
            batch = np.ascontiguousarray(images[start : start + BATCH])
            with self._lock:
                logits[start : start + BATCH] = self._request.infer({0: batch})[0]
        return logits


class ImageClassifier:
    """A network and what its version's metadata knows: how to prepare images, and what the logits mean.

    metadata: class_names, superclass_names, superclass_of_class; temperature; conformal, for each coverage in per cent
    the sum of probabilities up to which classes join a prediction set; ood: out of distribution is an image whose
    `score` (of ood_scores) is below `threshold`; None: cannot tell, for the `reason` given; square: the rule for
    images that are not, crop or pad. reference: of ood_scores, where the score needs it.
    """

    def __init__(self, network: OnnxModel, metadata: Mapping[str, Any], reference: Any = None) -> None:
        self.network, self.metadata, self.reference = network, metadata, reference
        self.class_names, names = (
            np.strings.replace(metadata[f"{k}_names"], "_", " ") for k in ("class", "superclass")
        )
        self.superclass_of = names[list(metadata["superclass_of_class"])]

    def prepare(self, images: np.ndarray, square: str | None = None) -> np.ndarray:
        """What the network sees of images (N, H, W, 3) uint8 of any size: (N, S, S, 3) uint8.

        Made square first: `crop` keeps the centre, `pad` adds white borders; None: the rule of the metadata. Then
        shrunk by averaging areas (Pillow's box filter; smaller images are enlarged to the nearest pixel).
        """
        square = square or self.metadata["square"]
        if square not in SQUARES:
            raise ValueError(f"square = {square!r}: choose one of {', '.join(SQUARES)}")
        images, size = _checked(images), self.network.image_size
        if images.shape[1:3] == (size, size):
            return images
        prepared = np.empty((len(images), size, size, 3), np.uint8)
        for index, pixels in enumerate(images):
            image = _padded(Image.fromarray(pixels)) if square == "pad" else Image.fromarray(pixels)
            prepared[index] = ImageOps.fit(image, (size, size), Image.Resampling.BOX)
        return prepared

    def logits(self, images: np.ndarray, square: str | None = None) -> np.ndarray:
        """Calibrated logits (N, C) float32, divided by the temperature, of images (N, H, W, 3) uint8 of any size."""
        images = _checked(images)
        parts = (images[start : start + BATCH] for start in range(0, len(images) or 1, BATCH))  # small ones grow
        logits = [self.network.logits(self.prepare(part, square)) for part in parts]
        return np.concatenate(logits) / np.float32(self.metadata["temperature"])

    def probabilities(self, images: np.ndarray, square: str | None = None) -> np.ndarray:
        """Calibrated probabilities (N, C) float32, rows sum to 1, of images (N, H, W, 3) uint8 of any size."""
        return softmax(self.logits(images, square))

    def prediction_sets(self, probabilities: np.ndarray, coverage: str = "90") -> list[list[str]]:
        """A set of classes for each row (N, C), the likeliest first.

        Over many images `coverage` of 100 sets hold the right class; of one image's set it says nothing.
        """
        order = np.argsort(-probabilities, axis=1, kind="stable")
        ordered = np.take_along_axis(probabilities, order, axis=1).astype(np.float64)
        # A class joins while those before it are not enough; none is empty.
        before = np.minimum(ordered.cumsum(axis=1) - ordered, 1)  # rounding may exceed a threshold of 1
        counts = (before <= self.metadata["conformal"][coverage]).sum(axis=1)
        return [self.class_names[row[:count]].tolist() for row, count in zip(order, counts, strict=True)]

    def out_of_distribution(self, logits: np.ndarray) -> list[bool | None]:
        """Whether each image, by its row of `logits`, (N, C), is unlike the training images; None: cannot tell."""
        rule = self.metadata["ood"]
        if rule["threshold"] is None:
            return [None] * len(logits)
        return (ood_scores(logits, self.reference)[rule["score"]] < rule["threshold"]).tolist()

    def rows(self, logits: np.ndarray, top_k: int) -> pd.DataFrame:
        """`top_k` rows of COLUMNS for each row of `logits`, (N, C); image counts from 0, rank from 1."""
        if not 1 <= top_k <= len(self.class_names):
            raise ValueError(f"top_k = {top_k}: ask for 1 to {len(self.class_names)} classes")
        probabilities = softmax(logits)
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
        classes, images = best.ravel(), np.repeat(np.arange(len(best)), top_k)
        sets, ood = self.prediction_sets(probabilities), self.out_of_distribution(logits)
        values = (
            images,
            np.tile(np.arange(1, top_k + 1), len(best)),
            self.class_names[classes],
            self.superclass_of[classes],
            np.take_along_axis(probabilities, best, axis=1).ravel(),
            [sets[image] for image in images],
            [ood[image] for image in images],
        )
        return pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Logits (N, C) to probabilities (N, C) float32, rows sum to 1; computed in float64."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def ood_scores(logits: np.ndarray, reference: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """By name (N,) float64 of calibrated logits (N, C): the higher, the more an image is like the training images.

    probability and logit: the highest (Hendrycks & Gimpel, 2017; Hendrycks et al., 2022); energy (Liu et al., 2020) and
    entropy: their negatives; mahalanobis: how much nearer the nearest class is than all of them are (Ren et al., 2021),
    by reference: centre (C,), of the classes from it means (C, C), inverse covariances (C, C) within and overall.
    """
    logits = logits.astype(np.float64)
    highest = logits.max(axis=1)
    energy = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
    logarithms = logits - energy[:, None]
    entropy = (np.exp(logarithms) * logarithms).sum(axis=1)
    scores = {"probability": np.exp(highest - energy), "logit": highest, "energy": energy, "entropy": entropy}
    if reference:
        rows, means, within = logits - reference["centre"], reference["means"], reference["within"]
        overall = (rows @ reference["overall"] * rows).sum(axis=1)
        to_class = (means @ within * means).sum(axis=1) - 2 * rows @ within @ means.T  # less what all classes share
        scores["mahalanobis"] = overall - (rows @ within * rows).sum(axis=1) - to_class.min(axis=1)
    return scores


def _padded(image: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", (max(image.size),) * 2, "white")
    canvas.paste(image, ((canvas.width - image.width) // 2, (canvas.height - image.height) // 2))
    return canvas


def _checked(images: Any) -> np.ndarray:
    """Images (N, H, W, 3) uint8, from such an array or nested lists of whole numbers; else ValueError."""
    if isinstance(images, list):
        try:
            numbers = np.asarray(images)
        except ValueError:
            raise ValueError("images must be lists (N, H, W, 3) of one size: send others in another request") from None
        is_whole = numbers.dtype.kind in "iu" or (numbers.dtype.kind == "f" and (numbers == np.floor(numbers)).all())
        if not is_whole or (numbers.size and not 0 <= numbers.min() <= numbers.max() <= 255):
            raise ValueError("pixels must be whole numbers from 0 to 255, and there are others among them")
        images = numbers.astype(np.uint8)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        kind = getattr(images, "dtype", type(images).__name__)
        raise ValueError(f"images must be a uint8 array (N, H, W, 3), not {kind}")
    if images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape[1:3]:
        raise ValueError(f"images must be (N, H, W, 3) with pixels, not {images.shape}")
    return images


if not __package__:  # MLflow runs its copy of this file; whoever imports it as a module needs no MLflow
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model, set_model
    from mlflow.protos.databricks_pb2 import INTERNAL_ERROR
    from mlflow.pyfunc import PythonModel

    class Refused(MlflowException):
        """The reason alone: MLflow's server would repeat the whole request in front of it."""

        def serialize_as_json(self) -> str:
            return json.dumps({"error_code": self.error_code, "message": str(self)})

    class PackagedModel(PythonModel):
        """predict(images (N, H, W, 3) uint8): probabilities (N, C) float32; with params={"top_k": k}: labelled rows.

        params["square"]: crop or pad, not the version's rule. MlflowException: a wrong request (400), a failure (500).
        """

        def load_context(self, context: Any) -> None:
            file = Path(context.artifacts["model"])
            root = next(parent for parent in file.parents if (parent / "MLmodel").is_file())
            self.metadata: dict[str, Any] = Model.load(root).metadata or {}
            if (found := hashlib.sha256(file.read_bytes()).hexdigest()) != (sha256 := self.metadata["onnx_sha256"]):
                told = f"(sha256 {found[:12]}..., expected {sha256[:12]}...): register the model again"
                raise MlflowException(f"{file.name} was changed after it was registered {told}")
            known = context.artifacts.get("reference")
            reference = dict(np.load(known, allow_pickle=False)) if known else None
            self.classifier = ImageClassifier(OnnxModel(file), self.metadata, reference)

        def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> Any:
            top_k, square = ((params or {}).get(name) or None for name in ("top_k", "square"))
            try:
                logits = self.classifier.logits(model_input, square)
                return self.classifier.rows(logits, top_k) if top_k else softmax(logits)
            except ValueError as error:
                raise Refused.invalid_parameter_value(str(error)) from None
            except Exception as error:  # MLflow's server would answer any other kind with a stack trace
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                raise Refused(f"the model failed on these images ({reason})", INTERNAL_ERROR) from error

    set_model(PackagedModel())
