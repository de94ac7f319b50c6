"""Three made-up models, as the stages would have described them."""

import copy

import pytest

from stages.report import Candidate

DATASET = {
    "source": "cifar100",
    "class_names": ["a"] * 100,
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
        measures = {"top5": 0.9, "nll": 1.0, "superclass_top1": 0.8, "macro_f1": 0.5}
        return Candidate(
            name,
            metrics={"val": {"top1": val, **measures}, "test": {"top1": test, **measures}},
            profile={
                "num_parameters": 1_500_000,
                "multiply_adds": 100_000_000,
                "weights_bytes": size,
                "latency_p50_ms": latency,
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
            },
        )

    return make
