"""A model as the reports know it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Candidate:
    """All that is known of a model, as the stages wrote it: metrics, profile and run, parsed from their JSON.

    robustness: its part of reports/robustness.json.
    """

    name: str
    metrics: Mapping[str, Mapping[str, float]]
    profile: Mapping[str, Any]
    run: Mapping[str, Any]
    robustness: Mapping[str, Any]

    @property
    def val_top1(self) -> float:
        return self.metrics["val"]["top1"]

    @property
    def test(self) -> Mapping[str, float]:
        """Its measures on the test pictures."""
        return self.metrics["test"]

    @property
    def precision(self) -> str:
        """In which its file computes."""
        return self.profile["precision"]

    @property
    def minutes(self) -> str:
        """Of training."""
        return f"{self.profile['training_seconds'] / 60:.1f}"

    @property
    def milliseconds(self) -> str:
        """Median latency of one picture."""
        return f"{self.profile['latency_p50_ms']:.1f}"


def by_validation(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Best first; of equals the first one, as in the registry's choice of a champion."""
    return sorted(candidates, key=lambda candidate: -candidate.val_top1)


def listed(items: Sequence[str]) -> str:
    """As a sentence has it: a, b and c."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def for_each(candidates: Sequence[Candidate], say: Callable[[Candidate], str]) -> str:
    """What is true of all candidates once; where they differ, each with the names it is true of."""
    said: dict[str, list[str]] = {}
    for candidate in candidates:
        said.setdefault(say(candidate), []).append(candidate.name)
    if len(said) == 1:
        return next(iter(said))
    return "; ".join(f"{listed(names)}: {text}" for text, names in said.items())


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> str:
    """A table in Markdown; words: how many of the first columns are aligned to the left."""
    marks = ["---"] * words + ["---:"] * (len(header) - words)
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, marks, *rows])
