"""What numbers allow to say: paired differences, rank correlations, intervals, many looks, the ceiling of luck."""

import functools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evoloss.records import Standing, Status

if TYPE_CHECKING:
    import numpy as np

ROUNDING = 1e-12  # of accuracies in float64; an image of a million counts 1e-6
LEVEL = 0.05  # of a verdict; the interval is its complement, 95 %
RESAMPLES = 2000  # of a bootstrap


@dataclass(frozen=True)
class Difference:
    """Mean paired difference of two losses, with its 95 % interval and p of the paired t-test."""

    mean: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; NaN where it is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Judgement:
    """A standing beside the reference. `gap` is None for the reference itself and for a loss that failed."""

    standing: Standing
    gap: Difference | None
    p_holm: float | None
    verdict: str


def difference(first: Sequence[float], second: Sequence[float]) -> Difference | None:
    """First minus second, paired by seed: Student's t (1908). None for fewer than two pairs.

    Few images give equal differences, of which no spread can be told; p is then that of n signs which are all the same,
    2 / 2**n (Fisher 1935).
    """
    from scipy import special

    pairs = [a - b for a, b in zip(first, second, strict=True)]
    if len(pairs) < 2:
        return None
    mean = statistics.fmean(pairs)
    error = statistics.stdev(pairs) / math.sqrt(len(pairs))
    if error < ROUNDING:
        return Difference(mean, mean, mean, 1.0 if abs(mean) < ROUNDING else 2.0 ** (1 - len(pairs)))
    width = float(special.stdtrit(len(pairs) - 1, 1 - LEVEL / 2)) * error
    p = float(2 * special.stdtr(len(pairs) - 1, -abs(mean) / error))
    return Difference(mean, mean - width, mean + width, p)


def verdict(gap: Difference | None, p: float | None = None) -> str:
    """What a difference allows to say at a p that is corrected for the number of comparisons; by default at its own."""
    if gap is None:
        return "one seed shows nothing"
    if (gap.p if p is None else p) >= LEVEL:
        return "not distinguishable"
    return "better" if gap.mean > 0 else "worse"


def holm(values: Sequence[float]) -> list[float]:
    """p values corrected for their number, in the order given: Holm (1979), valid under any dependence.

    Ours, because statsmodels collects garbage at every call, which takes half a second beside torch and Ray.
    """
    corrected = [0.0] * len(values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = largest
    return corrected


def judge(standings: Sequence[Standing], reference: str) -> list[Judgement]:
    """One regime's standings beside the one of the key `reference`, best test accuracy first, those that failed last.

    The p values are corrected together. Raises `ValueError` where the reference is missing.
    """
    base = next((standing for standing in standings if standing.key == reference), None)
    if base is None:
        raise ValueError("no standing of the reference to judge by")
    comparable = [s for s in standings if s.test and base.test and s.key != reference]
    gaps = {s.key: difference(s.test, base.test) for s in comparable}
    known = [key for key, gap in gaps.items() if gap is not None]
    corrected = dict(zip(known, holm([gap.p for gap in gaps.values() if gap is not None]), strict=True))
    judged = [_judgement(s, base, gaps.get(s.key), corrected.get(s.key)) for s in standings]
    return sorted(judged, key=lambda j: -statistics.fmean(j.standing.test) if j.standing.test else math.inf)


def _judgement(standing: Standing, base: Standing, gap: Difference | None, p: float | None) -> Judgement:
    if standing.status is not Status.OK:
        word = f"failed: {standing.status}"
    elif standing.key == base.key:
        word = "reference"
    elif base.status is not Status.OK:
        word = "the reference failed"
    else:
        word = verdict(gap, p)
    return Judgement(standing, gap, p, word)


def noise_ceiling(judged: Sequence[Judgement], count: int, seeds: int) -> float | None:
    """The lead that the best of `count` losses, all equal to the reference, is expected to show by luck alone.

        ceiling = s / sqrt(2 * seeds) * E[max of `count` standard normals]

    `s` is the median over the losses of the standard deviation of their paired differences to the reference, and
    s / sqrt(2) what one loss adds to it. None for a single loss, and where too few seeds leave no such deviation.
    """
    if count < 2:
        return None
    base = next((j.standing.test for j in judged if j.verdict == "reference"), ())
    spreads = [
        statistics.stdev(a - b for a, b in zip(j.standing.test, base, strict=True))
        for j in judged
        if j.gap is not None and j.standing.test
    ]
    if not spreads:
        return None
    return statistics.median(spreads) / math.sqrt(2 * seeds) * expected_maximum(count)


@functools.cache
def expected_maximum(count: int) -> float:
    """The mean of the largest of `count` independent standard normals: .5642 for 2, 1.5388 for 10 (Tippett 1925)."""
    from scipy import integrate, special

    def density(x: float) -> float:
        return count * math.exp(-x * x / 2) / math.sqrt(2 * math.pi) * float(special.ndtr(x)) ** (count - 1)

    value, _ = integrate.quad(lambda x: x * density(x), -10, 10)
    return float(value)


def rank_correlations(first: Sequence[float], second: Sequence[float]) -> "tuple[np.ndarray, np.ndarray]":
    """Spearman's rho and Kendall's tau-b of two rankings of the same n things, [1 + RESAMPLES] numbers each.

    The first number is the one of the things as they are, the others are of bootstrap resamples of them (Efron 1979).
    The resamples depend on n alone: arrays of the same n can be subtracted from each other and averaged. NaN where all
    things of a resample are equal.

    With s_ij = sign(x_i - x_j), t_ij the same of y, and w_i how often a resample has thing i:

        tau = sum w_i w_j s_ij t_ij / sqrt(sum w_i w_j s_ij^2 * sum w_i w_j t_ij^2)
        rho = sum w_i a_i b_i / sqrt(sum w_i a_i^2 * sum w_i b_i^2),  a_i = sum_j w_j s_ij,  b_i = sum_j w_j t_ij

    a_i / 2 is the rank of thing i less the mean rank, equal things sharing theirs.
    """
    import numpy as np

    count = len(first)
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    weights = np.concatenate([np.ones((1, count)), drawn])
    signs = [np.sign(np.subtract.outer(values, values)) for values in (np.asarray(first), np.asarray(second))]

    def kendall(s: np.ndarray, t: np.ndarray) -> np.ndarray:
        return (weights @ (s * t) * weights).sum(1)

    def spearman(s: np.ndarray, t: np.ndarray) -> np.ndarray:
        return (weights * (weights @ s) * (weights @ t)).sum(1)

    def correlation(product: Callable[["np.ndarray", "np.ndarray"], "np.ndarray"]) -> np.ndarray:
        s, t = signs
        with np.errstate(invalid="ignore"):
            return product(s, t) / np.sqrt(product(s, s) * product(t, t))

    return correlation(spearman), correlation(kendall)


def bootstrapped(values: "np.ndarray") -> Estimate:
    """The first of the values with the percentile interval of the others, those that are NaN left out."""
    import numpy as np

    if np.isnan(values).all():
        return Estimate(math.nan, math.nan, math.nan)
    low, high = np.nanpercentile(values[1:], [100 * LEVEL / 2, 100 * (1 - LEVEL / 2)])
    return Estimate(float(values[0]), float(low), float(high))
