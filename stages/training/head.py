"""A new head on a frozen backbone: the backbone is run once, the head is fitted to what it gave.

Without augmentation the features of a picture never change. They are computed once, kept on disk, and the head on
them is a multinomial logistic regression: convex, fitted in seconds, its regularisation chosen on validation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from stages.common.files import json_sha256
from stages.models.base import FinetunedClassifier, Training
from stages.training.progress import progress_bar

BATCH = 256  # pictures at a time
# Inverse strengths of the L2 penalty (scikit-learn's C), on features of unit variance and the sum of all losses.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
MAX_ITERATIONS = 200  # of L-BFGS


@dataclass(frozen=True)
class FeatureCache:
    """Features on disk, one folder for all that decides them.

    folder: may hold the features of many backbones and data sets; deleting it costs time only.
    key: what the features depend on beside the backbone's own facts: data, code; as JSON.
    """

    folder: Path
    key: Mapping[str, Any]

    def features(self, split: str, backbone: FinetunedClassifier, images: np.ndarray) -> np.ndarray:
        """The features (N, D) float32 of a split's images (N, H, W, 3) uint8, memory-mapped; computed where missing."""
        key = {**self.key, "backbone": backbone.backbone_facts(), "split": split, "count": len(images)}
        file = self.folder / f"{json_sha256(key)}.npy"
        if not file.exists():
            self._compute(file, split, backbone, images)
        return np.load(file, mmap_mode="r", allow_pickle=False)

    def _compute(self, file: Path, split: str, backbone: FinetunedClassifier, images: np.ndarray) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".unfinished")
        width = backbone.features(images[:1]).shape[1]
        stored = np.lib.format.open_memmap(unfinished, "w+", np.float32, (len(images), width))
        for start in progress_bar(range(0, len(images), BATCH), desc=f"Features of {split}", unit="batch"):
            stored[start : start + BATCH] = backbone.features(images[start : start + BATCH])
        stored.flush()
        unfinished.replace(file)


def fit_head(backbone: FinetunedClassifier, training: Training) -> float:
    """Fit the head to the training pictures and report it as one epoch; returns the strength that validation chose.

    Multinomial logistic regression on standardised features (scikit-learn, L-BFGS), from the strongest penalty to
    the weakest, each one starting from the weights before; the best top-1 on `val` is kept.
    """
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    train, val, cache = training.train, training.val, training.features
    if cache is None:
        with TemporaryDirectory() as folder:
            return fit_head(backbone, replace(training, features=FeatureCache(Path(folder), {})))
    train_features = cache.features("train", backbone, train.images)
    val_features = cache.features("val", backbone, val.images)
    mean = train_features.mean(0, dtype=np.float64).astype(np.float32)
    deviation = np.maximum(train_features.std(0, dtype=np.float64), 1e-6).astype(np.float32)
    standard = (train_features - mean) / deviation
    classes = np.unique(train.labels)
    regression = LogisticRegression(max_iter=MAX_ITERATIONS, tol=1e-3, warm_start=True)
    best: tuple[float, float, np.ndarray, np.ndarray] | None = None
    for strength in STRENGTHS:
        regression.set_params(C=strength).fit(standard, train.labels)
        weight = np.zeros((standard.shape[1], backbone.num_classes), np.float32)
        bias = np.full(backbone.num_classes, -1e4, np.float32)  # of classes that no training picture shows
        coefficients, intercepts = regression.coef_, regression.intercept_
        if len(classes) == 2:  # there scikit-learn gives one row, of the log-odds
            coefficients, intercepts = np.vstack([-coefficients, coefficients]) / 2, np.array([-0.5, 0.5]) * intercepts
        weight[:, classes] = coefficients.T / deviation[:, None]
        bias[classes] = intercepts - mean @ weight[:, classes]
        _, top1 = _loss_and_top1(val_features, val.labels, weight, bias)
        print(f"head with C = {strength:g}: {top1:.2%} of the validation pictures", flush=True)
        if best is None or top1 > best[0]:
            best = top1, strength, weight, bias
    assert best is not None
    _, strength, weight, bias = best
    backbone.set_head(weight, bias)
    measures = {}
    for name, features, labels in (("train", train_features, train.labels), ("val", val_features, val.labels)):
        measures[f"{name}_loss"], measures[f"{name}_top1"] = _loss_and_top1(features, labels, weight, bias)
    training.reporter.on_epoch(1, measures | {"learning_rate": 0.0})
    return strength


def _loss_and_top1(
    features: np.ndarray, labels: np.ndarray, weight: np.ndarray, bias: np.ndarray
) -> tuple[float, float]:
    logits = (features @ weight + bias).astype(np.float64)
    logits -= logits.max(1, keepdims=True)
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]
    return float(losses.mean()), float((logits.argmax(1) == labels).mean())
