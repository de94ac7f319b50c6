"""Statistical significance over test images: intervals, paired tests, and a ranking with ties.

The variance between trainings (another seed) is not in here: that takes several trainings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy.stats import binomtest

RESAMPLES = 10_000
LEVEL = 0.95


def bootstrap_interval(right: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of a share: right (N,) bool, by a bootstrap over images.

    A resample of N images holds a binomially distributed number of right ones, so those numbers are drawn instead
    of the images: the same distribution in no time.
    """
    shares = np.random.default_rng(seed).binomial(len(right), right.mean(), RESAMPLES) / len(right)
    low, high = np.quantile(shares, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Pair:
    """Two models on the same images.

    difference: top-1 of the first less that of the second; low, high: its 95 % interval, by a bootstrap over images.
    first_only, second_only: images that only this one of the two classifies correctly.
    p_value: of McNemar's exact test, that both are right equally often; adjusted: by Holm, for all pairs of models.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    first_only: int
    second_only: int
    p_value: float
    adjusted: float

    @property
    def is_significant(self) -> bool:
        """Whether the adjusted p-value is below 5 %."""
        return self.adjusted < 1 - LEVEL

    def seen_from(self, name: str) -> "Pair":
        """The same comparison with this one of the two first."""
        if name == self.first:
            return self
        return replace(
            self,
            first=self.second,
            second=self.first,
            difference=0.0 - self.difference,  # not -0.0, which would be printed
            low=0.0 - self.high,
            high=0.0 - self.low,
            first_only=self.second_only,
            second_only=self.first_only,
        )


def compare_pairs(right: Mapping[str, np.ndarray], seed: int = 0) -> list[Pair]:
    """Every two models on the same N images; right: by model, (N,) bool. The better one of a pair stands first.

    McNemar (1947) tests only the images on which the two differ; Holm (1979) corrects for several tests.
    """
    # Of equals the first stays first.
    names = sorted(right, key=lambda name: -right[name].sum())
    found = []
    for first, second in combinations(names, 2):
        first_only = int((right[first] & ~right[second]).sum())
        second_only = int((right[second] & ~right[first]).sum())
        low, high = _difference_interval(first_only, second_only, len(right[first]), seed)
        disagreements = first_only + second_only
        p_value = float(binomtest(first_only, disagreements).pvalue) if disagreements else 1.0
        difference = (first_only - second_only) / len(right[first])
        found.append((first, second, difference, low, high, first_only, second_only, p_value))
    adjusted = holm([row[-1] for row in found])
    return [Pair(*row, adjusted=p) for row, p in zip(found, adjusted, strict=True)]


def _difference_interval(first_only: int, second_only: int, count: int, seed: int) -> tuple[float, float]:
    # As above: of a resample only the numbers of the two kinds of disagreement matter, and they are multinomial.
    shares = [first_only / count, second_only / count, (count - first_only - second_only) / count]
    drawn = np.random.default_rng(seed).multinomial(count, shares, RESAMPLES)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / count, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for several tests by Holm's step-down method, in the same order."""
    order = np.argsort(p_values)
    scaled = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(scaled))
    return adjusted.tolist()


def ranks(right: Mapping[str, np.ndarray], pairs: Sequence[Pair]) -> list[tuple[int, str]]:
    """Ranks from 1, best first: a model that does not differ significantly from the first of a rank shares it."""
    significant = {frozenset((pair.first, pair.second)): pair.is_significant for pair in pairs}
    names = sorted(right, key=lambda name: -right[name].sum())
    ranked: list[tuple[int, str]] = []
    leader, rank = names[0], 1
    for position, name in enumerate(names, 1):
        if name != leader and significant[frozenset((leader, name))]:
            leader, rank = name, position
        ranked.append((rank, name))
    return ranked
