"""The figures of both benchmarks, computed from what their JSON files hold, and whether serving meets its goals."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

# The goals of serving. Each is about figures of one round, measured close in time: a machine's swings weigh on both.
AT_LEAST = {
    "speedup_single": ("framework_p50_ms / onnx_p50_ms", 1.0),
    "speedup_batches": ("onnx_images_per_second / framework_images_per_second", 1.0),
    "files_share": ("files_images_per_second / onnx_images_per_second", 0.95),
}
AT_MOST = {
    "http_ms": ("http_p50_ms - onnx_p50_ms", 4.0),
    "memory_growth": ("files_memory_mb / few_memory_mb", 1.05),
}
# Of some classifiers more is expected: for one image, in batches.
SPEEDUPS = {"vit_scratch": (1.35, 1.25), "vit_transfer": (1.35, 1.25), "mobilenet_transfer": (3.0, 1.0)}


def training(models: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """For each model `ours` and `baseline`, a row a round; and of each round speedup, memory (ratios) and overhead.

    overhead: share of a step that the bare one leaves; noise can bring it below zero.
    """
    figures = {}
    for name, rounds in models.items():
        ours, baseline = pd.DataFrame(rounds["ours"]), pd.DataFrame(rounds["notebook"])
        speedup, memory = (ours[key] / baseline[key] for key in ("images_per_second", "peak_memory_mb"))
        overhead = 1 - ours["model_step_seconds"] / ours["step_seconds"]
        figures[name] = {"ours": ours, "baseline": baseline, "speedup": speedup, "memory": memory, "overhead": overhead}
    return figures


def serving(models: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each model and goal: limit and relation, median (value), low and high of the rounds, and whether it is met.

    The median decides.
    """
    verdicts = []
    for name, model in models.items():
        rounds = pd.json_normalize(model["rounds"], sep="_")
        higher = dict(zip(AT_LEAST, SPEEDUPS.get(model["settings"]["classifier"], ()), strict=False))
        for figure, (formula, limit) in (AT_LEAST | AT_MOST).items():
            values: Any = rounds.eval(formula)
            limit = higher.get(figure, limit)
            low, value, high = values.quantile([0, 0.5, 1])
            met = bool(value >= limit if figure in AT_LEAST else value <= limit)
            relation = "at least" if figure in AT_LEAST else "at most"
            facts = {"model": name, "figure": figure, "relation": relation, "limit": limit, "met": met}
            verdicts.append(facts | {"value": value, "low": low, "high": high})
    return verdicts
