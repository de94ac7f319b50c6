"""A model as the reports know it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

# Of run.json, in comparison.json.
PUBLISHED = (
    "epochs",
    "budget",
    "seconds",
    "peak_memory_mb",
    "resolved",
    "hardware",
    "versions",
    "weights_sha256",
    "data_sha256",
)
# Of the measures on test, in the table of `summary`.
SHARES = ("top1", "top1_low", "top1_high", "superclass_top1", "ece_calibrated")


@dataclass(frozen=True)
class Candidate:
    """All that is known of a model, as the stages wrote it: metrics, profile and run, parsed from their JSON.

    run: of the seed that val chose, which is the one that is exported and measured; runs: of all seeds.
    robustness: its part of reports/robustness.json.
    """

    name: str
    metrics: Mapping[str, Mapping[str, Any]]
    profile: Mapping[str, Any]
    run: Mapping[str, Any]
    robustness: Mapping[str, Any]
    runs: Sequence[Mapping[str, Any]] = field(default=())

    @property
    def val_top1(self) -> float:
        return self.metrics["val"]["top1"]

    @property
    def test(self) -> Mapping[str, float]:
        return self.metrics["test"]

    @property
    def seeds(self) -> list[int]:
        """Those it was trained with."""
        return [int(seed) for seed in self.top1_by_seed("val")]

    def top1_by_seed(self, split: str) -> Mapping[str, float]:
        """By seed, as JSON has it."""
        if of_seeds := self.metrics.get("seeds"):
            return of_seeds[split]["top1"]
        return {str(self.run["params"]["seed"]): self.metrics[split]["top1"]}

    def mean_top1(self, split: str) -> float:
        """Over the seeds."""
        return float(np.mean(list(self.top1_by_seed(split).values())))

    @property
    def minutes(self) -> float:
        """Of training, with the chosen seed."""
        return self.profile["training_seconds"] / 60

    @property
    def mean_minutes(self) -> float:
        """Of training, over the seeds."""
        return float(np.mean([run["seconds"] for run in self.runs])) / 60 if self.runs else self.minutes

    @property
    def network(self) -> str:
        """Architecture and input size, as far as its settings name them."""
        params = self.run["params"]
        network = params.get("backbone") or (f"MobileNetV3 {params['variant']}" if "variant" in params else "")
        return f"{network} at {params['image_size']} px".strip() if "image_size" in params else network

    @property
    def is_pretrained(self) -> bool:
        """Whether training began with pretrained weights, as resolved."""
        return self.run["resolved"]["weights"] != "random"

    @property
    def is_head_only(self) -> bool:
        """Whether a linear head was fitted to a frozen backbone."""
        return self.run["params"].get("finetune") == "head"

    @property
    def epochs(self) -> float:
        """Passes over the training images that were made; a head is fitted to the features of one."""
        return self.run["epochs"]

    @property
    def budget(self) -> str:
        """What its training was given: 1 epoch, 11 minutes, 1 pass (for a head)."""
        return budget_of(self.run)

    @property
    def settings(self) -> dict[str, Any]:
        """The parameters of its training; of a weights file its name only."""
        params = self.run["params"]
        return {key: PurePath(value).name if key == "weights" and value else value for key, value in params.items()}

    @property
    def origin(self) -> str:
        """The archive its images came from: its URL without password, or its name where it was a local file."""
        parts = urlsplit(self.run["dataset"]["source"])
        if parts.scheme in ("http", "https"):
            return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        return PurePath(parts.path).name

    @property
    def published(self) -> dict[str, Any]:
        """What comparison.json says of its training, enough to write the report again."""
        run = {key: self.run[key] for key in PUBLISHED if key in self.run}
        return {**run, "params": self.settings, "dataset": {"source": self.origin}}

    @property
    def profiled_on(self) -> tuple[str, int, float, str]:
        """cpu, threads, GiB of memory, system."""
        hardware = self.profile["hardware"]
        return hardware["cpu"], hardware["threads"], hardware["memory_gb"], hardware["system"]

    @property
    def versions(self) -> tuple[tuple[str, str], ...]:
        """(library, version) of its training."""
        return tuple(self.run["versions"].items())


def budget_of(run: Mapping[str, Any]) -> str:
    """What run.json says that a training was given."""
    if run["params"].get("finetune") == "head":
        return "1 pass"
    budget = run.get("budget", {"kind": "epochs", "amount": run["epochs"]})
    kind = budget["kind"].removesuffix("s") if budget["amount"] == 1 else budget["kind"]
    return f"{budget['amount']:,g} {kind}"


def by_validation(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Best first; of equals the first one, as in the registry's choice of a champion."""
    return sorted(candidates, key=lambda candidate: -candidate.val_top1)


def summary(candidates: Sequence[Candidate]) -> pd.DataFrame:
    """A row for each model: shares on test and costs.

    Shares: top1, its 95 % interval low to high, superclass_top1, ece, calibrated. Costs:
    milliseconds per image (median), minutes of training, megabytes of weights.
    """
    columns = ["model", "top1", "low", "high", "superclass_top1", "ece", "milliseconds", "minutes", "megabytes"]
    rows = []
    for c in candidates:
        costs = c.profile["latency_p50_ms"], c.minutes, c.profile["weights_bytes"] / 1e6
        rows.append((c.name, *(c.test[key] for key in SHARES), *costs))
    return pd.DataFrame(rows, columns=columns)
