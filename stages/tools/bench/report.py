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


def training(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """For each model `ours` and `baseline`, a row a round; and of each round speedup, memory (ratios) and overhead.

    A model that trains in another precision stands there again, in float32 as the baseline is. overhead: share of a
    step that the bare one leaves; noise can bring it below zero.
    """
    figures = {}
    for model, rounds in found["models"].items():
        for way, label in (("ours", model), ("float32", f"{model} in float32")):
            if way not in rounds:
                continue
            ours, baseline = pd.DataFrame(rounds[way]), pd.DataFrame(rounds["baseline"])
            speedup, memory = (ours[key] / baseline[key] for key in ("images_per_second", "peak_memory_mb"))
            overhead = 1 - ours["model_step_seconds"] / ours["step_seconds"]
            figures[label] = {"model": model, "ours": ours, "baseline": baseline}
            figures[label] |= {"speedup": speedup, "memory": memory, "overhead": overhead}
    return figures


def accuracy(found: Mapping[str, Any]) -> dict[str, Any]:
    """When each training reached the target, and in what ours and the baseline differ.

    rows: way, seed, precision, is_reached, and of the last validation minutes, images and top1. ways: rows by way.
    shares: by way, for each seed, its minutes over those of the baseline, or None where ours did not get there; bounds
    from above (is_bound) where a baseline did not. differences: name to the baseline's value and ours; same: names.
    """
    rows = [
        {
            "way": way,
            "seed": seed,
            "precision": run["facts"]["precision"],
            "is_reached": run["curve"][-1]["top1"] >= found["target"],
            "minutes": run["curve"][-1]["seconds"] / 60,
            **{key: run["curve"][-1][key] for key in ("images", "top1")},
        }
        for way, runs in found["ways"].items()
        for seed, run in runs.items()
    ]
    ways = {way: [row for row in rows if row["way"] == way] for way in found["ways"]}
    shares = {
        way: [own["minutes"] / base["minutes"] for own, base in zip(ways[way], ways["baseline"], strict=True)]
        for way in ways
        if way != "baseline" and all(row["is_reached"] for row in ways[way])
    }
    baseline, ours = (next(iter(found["ways"][way].values()))["facts"] for way in ("baseline", "ours"))
    # What the baseline does not know it does without.
    names = dict.fromkeys([*baseline, *ours])
    differences = {
        name: (baseline.get(name), ours.get(name))
        for name in names
        if (baseline.get(name) or None) != (ours.get(name) or None)
    }
    return {
        "rows": rows,
        "ways": ways,
        "shares": shares,
        "is_bound": not all(row["is_reached"] for row in ways["baseline"]),
        "differences": differences,
        "same": [name for name in names if name not in differences],
        "val_images": next(iter(found["ways"]["ours"].values()))["val_images"],
    }


def serving(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each model and goal: limit and relation, median (value), low and high of the rounds, and whether it is met.

    The median decides.
    """
    verdicts = []
    for name, model in found["models"].items():
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
