"""Statistical significance over test images, and over seeds where there are several: intervals, tests, a ranking.

With one seed the variance between trainings is not in here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy.stats import binomtest, norm, t

RESAMPLES = 10_000
LEVEL = 0.95


def wilson(share: float, count: float) -> tuple[float, float]:
    """The 95 % interval of a share of so many (Wilson, 1927).

    It holds near 0 and 1, too: 20 of 20 give 0.84 to 1, where a bootstrap gives 1 to 1.
    """
    square = norm.ppf((1 + LEVEL) / 2) ** 2 / count
    centre, reach = share + square / 2, np.sqrt(square * (share * (1 - share) + square / 4))
    return max(0.0, float((centre - reach) / (1 + square))), min(1.0, float((centre + reach) / (1 + square)))


def share_interval(right: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the share of right ones, (N,) bool."""
    return wilson(right.mean(), len(right))


def difference_interval(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Share of the first less that of the second, low and high: of different images, (N,) and (M,) bool.

    Newcombe (1998), from both Wilson intervals: it holds for shares near 0 and 1, too.
    """
    one, other = first.mean(), second.mean()
    (one_low, one_high), (other_low, other_high) = share_interval(first), share_interval(second)
    below, above = np.hypot(one - one_low, other_high - other), np.hypot(one_high - one, other - other_low)
    return float(one - other), float(one - other - below), float(one - other + above)


@dataclass(frozen=True)
class Pair:
    """Two models on the same images.

    difference: top-1 of the first less that of the second, means over seeds; low, high: its 95 % interval.
    first_only, second_only: images that only this one of the two classifies correctly; mean over all pairs of seeds.
    p_value: that both are right equally often; adjusted: by Holm, for all pairs of models.
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
    """Every two models on the same N images; right: by model, (N,) bool, or (S, N) of S seeds. The better stands first.

    One seed: McNemar's exact test (1947), of the images on which the two differ, and a bootstrap over images. More: see
    `_over_seeds`. Holm (1979) corrects for several tests.
    """
    matrices = {name: np.atleast_2d(own) for name, own in right.items()}
    # Of equals the first stays first.
    names = sorted(matrices, key=lambda name: -matrices[name].mean())
    found = []
    for first, second in combinations(names, 2):
        one, other = matrices[first], matrices[second]
        share, other_share = one.mean(axis=0), other.mean(axis=0)  # (N,): of the seeds
        first_only = round((share * (1 - other_share)).sum())
        second_only = round((other_share * (1 - share)).sum())
        if len(one) == len(other) == 1:
            low, high = _difference_interval(first_only, second_only, len(share), seed)
            disagreements = first_only + second_only
            p_value = float(binomtest(first_only, disagreements).pvalue) if disagreements else 1.0
        else:
            low, high, p_value = _over_seeds(one, other)
        difference = float((share - other_share).mean())
        found.append((first, second, difference, low, high, first_only, second_only, p_value))
    adjusted = holm([row[-1] for row in found])
    return [Pair(*row, adjusted=p) for row, p in zip(found, adjusted, strict=True)]


def _over_seeds(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Interval and p-value of the difference of mean top-1, seeds and images both drawn at random; (S, N) bool each.

    Seeds are nested in models, images shared: the analysis of several readers and cases (Hillis, 2007,
    https://doi.org/10.1002/sim.2532), whose variance is that over images plus that over each model's seeds less what
    both contain, the chance of a seed on an image. A bootstrap of seeds and images together counts that chance three
    times (Owen, 2007, https://arxiv.org/abs/0712.1111) and makes the variance between S seeds (S - 1) / S of what it
    is: measured with three seeds, its intervals covered 98 % where seeds hardly differ, 91 % where they differ much.
    Variances are unbiased here (ddof 1), and Student's t, by Satterthwaite's degrees of freedom, allows for a spread
    known from three seeds only. Of a model with one seed that spread is unknown and left out.
    """
    difference, images = float(first.mean() - second.mean()), first.shape[1]
    over_images = (first.mean(axis=0) - second.mean(axis=0)).var(ddof=1) / images
    variance, spread = over_images, over_images**2 / (images - 1)
    for right in (right for right in (first, second) if len(right) > 1):
        seeds = len(right)
        over_seeds = right.mean(axis=1).var(ddof=1) / seeds
        chance = right.var(axis=0, ddof=1).mean() / (seeds * images)
        variance += max(0.0, over_seeds - chance)
        spread += over_seeds**2 / (seeds - 1)
    if not variance:
        return difference, difference, float(difference == 0)
    error, freedom = np.sqrt(variance), variance**2 / spread
    reach = t.ppf((1 + LEVEL) / 2, freedom) * error
    return float(difference - reach), float(difference + reach), float(2 * t.sf(abs(difference) / error, freedom))


def _difference_interval(first_only: int, second_only: int, count: int, seed: int) -> tuple[float, float]:
    # Of a resample of images only the numbers of the two kinds of disagreement matter, and they are multinomial: the
    # same distribution in no time.
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
    names = sorted(right, key=lambda name: -right[name].mean())
    ranked: list[tuple[int, str]] = []
    leader, rank = names[0], 1
    for position, name in enumerate(names, 1):
        if name != leader and significant[frozenset((leader, name))]:
            leader, rank = name, position
        ranked.append((rank, name))
    return ranked
