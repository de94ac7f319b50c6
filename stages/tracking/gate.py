"""The promotion gate: when a candidate takes over from the champion, both compared on the same images of gate.

Not of val: the candidate is the best of its run there, so that its lead there is partly luck.
"""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from stages.evaluation.significance import compare_pairs


@dataclass(frozen=True)
class PairedComparison:
    """A candidate and the champion on the same images, which neither was trained on or selected by.

    candidate, champion: top-1 of each, between 0 and 1. low, high: 95 % interval of the difference in top-1.
    p_value: of McNemar's exact test.
    """

    images: int
    candidate: float
    champion: float
    low: float
    high: float
    p_value: float

    @classmethod
    def of(cls, candidate: np.ndarray, champion: np.ndarray) -> Self:
        """candidate, champion: (N,) bool, whose top-1 is right on which images."""
        [pair] = compare_pairs({"candidate": candidate, "champion": champion})
        seen = pair.seen_from("candidate")
        return cls(len(candidate), float(candidate.mean()), float(champion.mean()), seen.low, seen.high, seen.p_value)

    @property
    def difference(self) -> float:
        """Top-1 of the candidate less that of the champion."""
        return self.candidate - self.champion

    def __str__(self) -> str:
        return (
            f"{self.candidate:.2%} against {self.champion:.2%} on the same {self.images:,} gate images, a "
            f"difference of {100 * self.difference:+.2f} points ({100 * self.low:+.2f} to {100 * self.high:+.2f}), "
            f"McNemar's exact p = {self.p_value:.2g}"
        )


@dataclass(frozen=True)
class Gate:
    """What a candidate must show to take over.

    rule: significant: higher top-1, and a p-value of McNemar's exact test below alpha; better: higher top-1;
    always: nothing.
    """

    rule: Literal["significant", "better", "always"] = "significant"
    alpha: float = 0.05

    def passes(self, comparison: PairedComparison) -> bool:
        """Whether the candidate takes over."""
        if self.rule == "always":
            return True
        return comparison.difference > 0 and (self.rule == "better" or comparison.p_value < self.alpha)

    def __str__(self) -> str:
        return f"gate: significant at {self.alpha:g}" if self.rule == "significant" else f"gate: {self.rule}"
