"""Which model becomes champion: the best candidate against the present champion, on the same validation images."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from stages.evaluation.significance import compare_pairs

FEWEST_IMAGES = 500  # on which two models are compared where their splits differ


@dataclass(frozen=True)
class Gate:
    """What a candidate must show to take over.

    rule: significant: higher top-1, and a p-value of McNemar's exact test below alpha; better: higher top-1;
    always: nothing.
    """

    rule: Literal["significant", "better", "always"] = "better"
    alpha: float = 0.05

    def passes(self, comparison: "PairedComparison") -> bool:
        """Whether the candidate takes over."""
        if self.rule == "always":
            return True
        return comparison.difference > 0 and (self.rule == "better" or comparison.p_value < self.alpha)

    def __str__(self) -> str:
        return f"gate: significant at {self.alpha:g}" if self.rule == "significant" else f"gate: {self.rule}"


@dataclass(frozen=True)
class PairedComparison:
    """A candidate and the champion on the same images, which neither was trained on.

    candidate_right, champion_right: images with the right top-1; candidate_only, champion_only: of this one alone.
    low, high: 95 % interval of the difference in top-1; p_value: of McNemar's exact test.
    """

    images: int
    candidate_right: int
    champion_right: int
    candidate_only: int
    champion_only: int
    low: float
    high: float
    p_value: float

    @classmethod
    def of(cls, candidate: np.ndarray, champion: np.ndarray) -> "PairedComparison":
        """candidate, champion: (N,) bool, whose top-1 is right on which images."""
        [pair] = compare_pairs({"candidate": candidate, "champion": champion})
        first = pair.first == "candidate"
        return cls(
            images=len(candidate),
            candidate_right=int(candidate.sum()),
            champion_right=int(champion.sum()),
            candidate_only=pair.first_only if first else pair.second_only,
            champion_only=pair.second_only if first else pair.first_only,
            low=round(pair.low if first else -pair.high, 6),
            high=round(pair.high if first else -pair.low, 6),
            p_value=pair.p_value,
        )

    @property
    def difference(self) -> float:
        """Top-1 of the candidate less that of the champion."""
        return (self.candidate_right - self.champion_right) / self.images

    def __str__(self) -> str:
        return (
            f"{self.candidate_right / self.images:.2%} against {self.champion_right / self.images:.2%} on the same "
            f"{self.images:,} validation images, a difference of {100 * self.difference:+.2f} points "
            f"({100 * self.low:+.2f} to {100 * self.high:+.2f}), McNemar's exact p = {self.p_value:.2g}"
        )


@dataclass(frozen=True)
class Candidate:
    """A model that may become champion; val_top1 is its accuracy on the validation split, between 0 and 1."""

    model: str
    val_top1: float

    def __str__(self) -> str:
        return f"{self.model} ({self.val_top1:.2%})"


AnyCandidate = TypeVar("AnyCandidate", bound=Candidate)


def ranking(candidates: Sequence[AnyCandidate]) -> list[AnyCandidate]:
    """Best on the validation split first, of equals the one named first. The test split has no say."""
    return sorted(candidates, key=lambda candidate: -candidate.val_top1)  # stable: equals keep their order


def hashes(images: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) uint8 -> (N,) uint64, by which an image is known again; equal ones of 50,000 are no accident."""
    digests = (hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images)
    return np.frombuffer(b"".join(digests), dtype="<u8")
