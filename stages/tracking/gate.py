"""Which model becomes champion: the best newcomer against the present champion, on the same validation pictures."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stages.metrics.significance import compare_pairs

FEWEST_PICTURES = 500  # on which two models are compared where their splits differ


@dataclass(frozen=True)
class Gate:
    """What a newcomer must show to take over.

    rule: significant: higher top-1, and a p-value of McNemar's exact test below alpha; better: higher top-1;
    always: nothing.
    """

    rule: Literal["significant", "better", "always"] = "better"
    alpha: float = 0.05

    def lets_through(self, match: "Match") -> bool:
        """Whether the newcomer takes over."""
        if self.rule == "always":
            return True
        return match.difference > 0 and (self.rule == "better" or match.p_value < self.alpha)

    def __str__(self) -> str:
        return f"gate: significant at {self.alpha:g}" if self.rule == "significant" else f"gate: {self.rule}"


@dataclass(frozen=True)
class Match:
    """A newcomer and the champion on the same pictures, which neither was trained on.

    newcomer_only, champion_only: pictures that only this one of the two names right.
    low, high: 95 % interval of the difference in top-1; p_value: of McNemar's exact test.
    """

    pictures: int
    newcomer_right: int
    champion_right: int
    newcomer_only: int
    champion_only: int
    low: float
    high: float
    p_value: float

    @classmethod
    def of(cls, newcomer: np.ndarray, champion: np.ndarray) -> "Match":
        """newcomer, champion: (N,) bool, which pictures each names right."""
        [pair] = compare_pairs({"newcomer": newcomer, "champion": champion})
        first = pair.first == "newcomer"
        return cls(
            pictures=len(newcomer),
            newcomer_right=int(newcomer.sum()),
            champion_right=int(champion.sum()),
            newcomer_only=pair.first_only if first else pair.second_only,
            champion_only=pair.second_only if first else pair.first_only,
            low=round(pair.low if first else -pair.high, 6),
            high=round(pair.high if first else -pair.low, 6),
            p_value=pair.p_value,
        )

    @property
    def difference(self) -> float:
        """Top-1 of the newcomer less that of the champion."""
        return (self.newcomer_right - self.champion_right) / self.pictures

    def __str__(self) -> str:
        return (
            f"{self.newcomer_right / self.pictures:.2%} against {self.champion_right / self.pictures:.2%} on the same "
            f"{self.pictures:,} val pictures, a difference of {100 * self.difference:+.2f} points "
            f"({100 * self.low:+.2f} to {100 * self.high:+.2f}), McNemar's exact p = {self.p_value:.2g}"
        )


@dataclass(frozen=True)
class Candidate:
    """A model that may become champion; val_top1 is its accuracy on the validation split, between 0 and 1."""

    model: str
    val_top1: float

    def __str__(self) -> str:
        return f"{self.model} ({self.val_top1:.2%})"


def ranking(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Best on the validation split first, of equals the one named first. The test split has no say."""
    return sorted(candidates, key=lambda candidate: -candidate.val_top1)  # stable: equals keep their order


def hashes(images: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) uint8 -> (N,) uint64, by which a picture is known again; equal ones of 50,000 are no accident."""
    digests = (hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images)
    return np.frombuffer(b"".join(digests), dtype="<u8")
