"""A new head on a frozen backbone: the backbone is run once, the head is fitted to its features.

Without augmentation the features of an image never change. They are computed once, kept on disk, and the head on
them is a multinomial logistic regression: convex, fitted in seconds, its regularisation chosen on validation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.common.files import json_sha256
from stages.models.base import FinetunedClassifier
from stages.training.batches import LabeledImages
from stages.training.progress import Reporter, few_rows, progress_bar

BATCH = 256  # images at a time
# Inverse strengths of the L2 penalty (scikit-learn's C), on features of unit variance and the sum of all losses.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
MAX_ITERATIONS = 200  # of L-BFGS


@dataclass(frozen=True)
class FeatureCache:
    """Features on disk, one file for all that decides them.

    folder: may hold the features of many backbones and data sets; deleting it costs time only.
    key: what the features depend on beside the backbone's own facts: data, code; as JSON.
    """

    folder: Path
    key: Mapping[str, Any]

    def features(self, backbone: FinetunedClassifier, split: str, images: np.ndarray) -> np.ndarray:
        """Features (N, D) float32 of a split's images (N, H, W, 3) uint8; computed where no file holds them."""
        key = {**self.key, "backbone": backbone.backbone_facts(), "split": split, "count": len(images)}
        file = self.folder / f"{json_sha256(key)}.npy"
        if not file.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            unfinished = file.with_suffix(".unfinished")
            with unfinished.open("wb") as stream:
                np.save(stream, compute_features(backbone, split, images), allow_pickle=False)
            unfinished.replace(file)
        return np.load(file, allow_pickle=False)


def compute_features(backbone: FinetunedClassifier, split: str, images: np.ndarray) -> np.ndarray:
    """Features (N, D) float32 of images (N, H, W, 3) uint8; split: for the progress bar."""
    starts = progress_bar(range(0, len(images), BATCH), desc=f"Features of {split}", unit="batch")
    return np.concatenate([backbone.features(images[start : start + BATCH]) for start in starts])


def fit_head(
    backbone: FinetunedClassifier,
    train: LabeledImages,
    val: LabeledImages,
    reporter: Reporter,
    cache: FeatureCache | None = None,
) -> float:
    """Fit the head to the training images and report it as one epoch; returns the strength that validation chose.

    Multinomial logistic regression on standardised features (scikit-learn, L-BFGS), from the strongest penalty to
    the weakest, each one starting from the weights before; the best top-1 on `val` is kept.
    """
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    features_of = cache.features if cache else compute_features
    train_features = features_of(backbone, "train", train.images)
    val_features = features_of(backbone, "val", val.images)
    mean = train_features.mean(0, dtype=np.float64).astype(np.float32)
    deviation = np.maximum(train_features.std(0, dtype=np.float64), 1e-6).astype(np.float32)
    standard = (train_features - mean) / deviation
    classes = np.unique(train.labels)
    regression = LogisticRegression(max_iter=MAX_ITERATIONS, tol=1e-3, warm_start=True)
    heads: dict[float, tuple[float, np.ndarray, np.ndarray]] = {}  # by strength: top-1 on validation, weight, bias
    for strength in STRENGTHS:
        regression.set_params(C=strength).fit(standard, train.labels)
        weight = np.zeros((standard.shape[1], backbone.num_classes), np.float32)
        bias = np.full(backbone.num_classes, -1e4, np.float32)  # of classes without a training image
        coefficients, intercepts = regression.coef_, regression.intercept_
        if len(classes) == 2:  # there scikit-learn gives one row, of the log-odds
            coefficients, intercepts = np.vstack([-coefficients, coefficients]) / 2, np.array([-0.5, 0.5]) * intercepts
        weight[:, classes] = coefficients.T / deviation[:, None]
        bias[classes] = intercepts - mean @ weight[:, classes]
        _, top1 = _loss_and_top1(val_features, val.labels, weight, bias)
        print(f"head with C = {strength:g}: {top1:.2%} top-1 on validation", flush=True)
        heads[strength] = top1, weight, bias
    best = max(heads, key=lambda strength: heads[strength][0])  # of equal ones the first, with the strongest penalty
    _, weight, bias = heads[best]
    backbone.set_head(weight, bias)
    train_loss, train_top1 = _loss_and_top1(train_features, train.labels, weight, bias)
    val_loss, val_top1 = _loss_and_top1(val_features, val.labels, weight, bias)
    metrics = {"train_loss": train_loss, "train_top1": train_top1, "val_loss": val_loss, "val_top1": val_top1}
    few = few_rows(val)
    loss, top1 = _loss_and_top1(val_features[few], val.labels[few], weight, bias)
    reporter.on_learning(len(train.labels), {"val_top1": top1, "val_loss": loss})
    reporter.on_epoch(1, metrics | {"learning_rate": 0.0})
    return best


def _loss_and_top1(
    features: np.ndarray, labels: np.ndarray, weight: np.ndarray, bias: np.ndarray
) -> tuple[float, float]:
    logits = (features @ weight + bias).astype(np.float64)
    logits -= logits.max(1, keepdims=True)
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]
    return float(losses.mean()), float((logits.argmax(1) == labels).mean())
