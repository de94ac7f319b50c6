"""Made-up models, as the stages would have described them."""

import copy

import numpy as np

from stages.evaluation.model_comparison import compare
from stages.report.candidate import Candidate

DATASET = {
    "source": "cifar100",
    "image_size": 32,
    "class_names": [f"class_{label}" for label in range(100)],
    "counts": {"train": 45_000, "val": 5_000, "gate": 2_500, "test": 10_000},
    "data_sha256": "d" * 64,
    "dropped_from_train_because_in_test": 10,
    "identical_copies_in_train": 14,
    "val_fraction": 0.1,
    "gate_fraction": 0.5,
    "split_seed": 0,
    "limit_per_class": None,
}
MEASURES = {
    **{"top5": 0.9, "superclass_top1": 0.8, "superclass_top1_on_errors": 0.4, "macro_f1": 0.5},
    **{
        "nll": 1.2,
        "ece": 0.1,
        "ece_width": 0.11,
        "brier": 0.6,
        "nll_calibrated": 1.1,
        "ece_calibrated": 0.02,
        "ece_width_calibrated": 0.03,
        "brier_calibrated": 0.5,
    },
    **{"coverage_90": 0.903, "set_size_90": 2.5, "coverage_95": 0.951, "set_size_95": 4.5},
}
FITTED = {
    "calibration": {"temperature": 1.234},
    "conformal": {"90": {"threshold": 0.8}, "95": {"threshold": 0.9}},
    "ood": {
        **{"score": "energy", "threshold": 0.17, "flagged_test": 0.052, "reason": None},
        "by_kind": {
            "digits": {"distance": "far", "images": 1797, "flagged": 0.77, "auroc": 0.987, "low": 0.98, "high": 0.99}
        },
    },
}
PROFILE = {
    **{"onnx_sha256": "f" * 64, "precision": "float32", "num_parameters": 1_500_000, "multiply_adds": 100_000_000},
    **{"cold_load_seconds": 3.5, "throughput_images_per_second": 250.0},
    "hardware": {"cpu": "Some CPU", "threads": 2, "memory_gb": 16.0, "system": "Linux x86_64"},
}
RUN = {
    "params": {"seed": 0, "backbone": "vit_tiny", "image_size": 128, "weights": "/home/me/weights/w.h5"},
    "resolved": {"weights_sha256": "e" * 64, "device": "cpu", "precision": "float32", "threads": 2},
    "dataset": {"source": "/home/me/archives/cifar.tar.xz"},
    **{"epochs": 1, "peak_memory_mb": 2048.0, "seconds": 600.0, "weights_sha256": "a" * 64, "data_sha256": "d" * 64},
    "hardware": {"cpu": "Some CPU", "cores": 2},
    "versions": {"torch": "2.0"},
}


def candidate(name, val=0.5, test=0.5, *, latency=10.0, size=10_000_000, seconds=600.0, weights="random", spread=None):
    """A model by its name, top-1 on validation and test, and cost; weights: as resolved.

    spread: with it there are seeds 0, 1, 2, their top-1 apart by so much, the chosen 0 the best of them.
    """
    cost = {"latency_p50_ms": latency, "latency_p95_ms": 2 * latency, "weights_bytes": size}
    run = copy.deepcopy(RUN)
    run["resolved"]["weights"] = weights
    return Candidate(
        name,
        metrics={
            "val": {"top1": val, **MEASURES},
            "test": {"top1": test, "top1_low": test - 0.01, "top1_high": test + 0.01, **MEASURES},
            **copy.deepcopy(FITTED),
            **({"seeds": seeds(spread, val=val, test=test)} if spread else {}),
        },
        profile=copy.deepcopy(PROFILE) | cost | {"training_seconds": seconds},
        run=run,
        robustness={"clean": test, "mean": 0.321, "noise": 0.222},
    )


def seeds(spread, **top1):
    found = {}
    for split, best in top1.items():
        each = {str(seed): best - seed * spread for seed in range(3)}
        found[split] = {"top1": each, "mean": best - spread, "std": spread}
    return {"chosen": 0, **found}


def compared(*candidates):
    """The comparison of candidates that are right for the first so many of 1,000 images."""
    labels = np.arange(1_000) % 100
    logits = {}
    for one in candidates:
        right = np.arange(1_000) < round(1_000 * one.test["top1"])
        logits[one.name] = 5 * np.eye(100, dtype=np.float32)[np.where(right, labels, (labels + 1) % 100)]
    found = compare(
        logits, labels, {one.name: {**one.metrics, "calibration": {"temperature": 1.0}} for one in candidates}
    )
    return {"corrupted_images": 2_000, "int8": {}, **found}
