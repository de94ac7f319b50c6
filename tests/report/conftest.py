"""Three made-up models, as the stages would have described them."""

import copy

import numpy as np
import pytest

from stages.evaluation.comparison import compare
from stages.report.candidate import Candidate
from stages.report.comparison import render

DATASET = {
    "source": "cifar100",
    "class_names": [f"class_{label}" for label in range(100)],
    "counts": {"train": 45_000, "val": 5_000, "test": 10_000},
    "data_sha256": "d" * 64,
    "dropped_from_train_because_in_test": 10,
    "identical_copies_in_train": 14,
    "val_fraction": 0.1,
    "split_seed": 0,
    "limit_per_class": None,
}


@pytest.fixture
def dataset():
    return copy.deepcopy(DATASET)


@pytest.fixture
def candidate():
    def make(name, val=0.5, test=0.5, *, latency=10.0, size=10_000_000, seconds=600.0, weights="random"):
        measures = {
            **{"top5": 0.9, "superclass_top1": 0.8, "superclass_top1_of_wrong": 0.4, "macro_f1": 0.5},
            **{"nll": 1.2, "ece": 0.1, "brier": 0.6},
            **{"nll_calibrated": 1.1, "ece_calibrated": 0.02, "brier_calibrated": 0.5},
            **{"coverage_90": 0.903, "set_size_90": 2.5, "coverage_95": 0.951, "set_size_95": 4.5},
        }
        ends = {"top1_low": test - 0.01, "top1_high": test + 0.01}
        return Candidate(
            name,
            metrics={
                "val": {"top1": val, **measures},
                "test": {"top1": test, **ends, **measures},
                "calibration": {"temperature": 1.234},
                "conformal": {"90": {"threshold": 0.8}, "95": {"threshold": 0.9}},
                "unfamiliar": {"threshold": 0.17, "flagged_test": 0.052},
            },
            profile={
                "onnx_sha256": "f" * 64,
                "precision": "float32",
                "num_parameters": 1_500_000,
                "multiply_adds": 100_000_000,
                "weights_bytes": size,
                "latency_p50_ms": latency,
                "latency_p95_ms": 2 * latency,
                "cold_load_seconds": 3.5,
                "throughput_images_per_second": 250.0,
                "training_seconds": seconds,
                "hardware": {"cpu": "Some CPU", "threads": 2, "memory_gb": 16.0, "system": "Linux x86_64"},
            },
            run={
                "params": {"seed": 0, "backbone": "vit_tiny", "image_size": 128, "weights": "/home/me/weights/w.h5"},
                "resolved": {
                    "weights": weights,
                    "weights_sha256": "e" * 64,
                    "device": "cpu",
                    "precision": "float32",
                    "threads": 2,
                },
                "dataset": {"source": "/home/me/archives/cifar.tar.xz"},
                "epochs": 1,
                "peak_memory_mb": 2048.0,
                "hardware": {"cpu": "Some CPU", "cores": 2},
                "versions": {"torch": "2.0"},
                "data_sha256": "d" * 64,
            },
            robustness={
                "clean": test,
                "mean": 0.321,
                "noise": 0.222,
                "foreign": {"digits": {"pictures": 1797, "flagged": 0.77, "auroc": 0.987}},
            },
        )

    return make


@pytest.fixture
def findings():
    """What the comparison finds of candidates that are right for the first so many of 1,000 pictures."""

    def make(*candidates):
        labels = np.arange(1_000) % 100
        logits = {}
        for candidate in candidates:
            said = np.where(np.arange(1_000) < round(1_000 * candidate.test["top1"]), labels, (labels + 1) % 100)
            logits[candidate.name] = 5 * np.eye(100, dtype=np.float32)[said]
        found = compare(logits, labels, {candidate.name: 1.0 for candidate in candidates})
        return {"altered_pictures": 2_000, **found}

    return make


@pytest.fixture
def report(dataset, findings):
    def make(*candidates, pictures=(), **changes):
        return render(candidates, findings(*candidates), dataset | changes, pictures)

    return make
