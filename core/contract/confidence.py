"""Intervals of means: Student's t on the scale of the means, the bootstrap-t, and Wilson's interval for rates.

Each mean of a cell is over prompts as clusters. Its interval is

- for ratios and differences of ten prompts or more the **bootstrap-t** (Efron 1979; Hall 1988, "Theoretical
  comparison of bootstrap confidence intervals"): lengths are skewed, and the percentiles of resampled means lean the
  wrong way, while resampled t statistics show how far. Fewer prompts get Student's t, on the logarithm for ratios;
- for rates **Wilson's** (1927), with the effective number of completions where those of one prompt are alike
  (Korn and Graubard 1998): 0 of 100 is no certainty.

What is made of several means (ratios, averages, spreads, slopes) is made of their **draws**: the joint resamples of
`windowshift.core.contract.stats`, stretched on the link scale to either side of each mean until their percentiles are
the ends of its interval. Their dependence, and so all pairing by prompt, stays as it was resampled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from windowshift.core.contract.scale import Scale

Floats = NDArray[np.float64]
LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
SMALLEST_BOOTSTRAP = 10
"""Below so many prompts resampled t statistics are ruled by resamples of two or three prompts."""


def student_t(degrees: float, level: float = LEVEL) -> float:
    """The quantile of Student's t that leaves (1 - level) / 2 above it; below 1 degree of freedom there is none.

    By hand, because scipy costs a screen 27 MB. Between whole degrees of freedom it is a line over their inverses.
    """
    if not degrees >= 1:
        return math.inf
    if degrees > 1e6:
        return NormalDist().inv_cdf((1 + level) / 2)
    below = math.floor(degrees)
    if below == degrees:
        return _student_t(below, level)
    share = (1 / below - 1 / degrees) / (1 / below - 1 / (below + 1))
    return _student_t(below, level) * (1 - share) + _student_t(below + 1, level) * share


@lru_cache(maxsize=4096)  # p values ask for many levels
def _student_t(degrees: int, level: float) -> float:
    """Hill's algorithm (1970, number 396): exact for 1 and 2 degrees of freedom, to four digits beyond."""
    tail = 1 - level
    if degrees == 1:
        return 1 / math.tan(tail * math.pi / 2)
    if degrees == 2:
        return math.sqrt(2 / (tail * (2 - tail)) - 2)
    a = 1 / (degrees - 0.5)
    b = 48 / (a * a)
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * math.sqrt(a * math.pi / 2) * degrees
    x = d * tail
    y = x ** (2 / degrees)
    if y > 0.05 + a:
        x = -NormalDist().inv_cdf(tail / 2)
        y = x * x
        if degrees < 5:
            c += 0.3 * (degrees - 4.5) * (x + 0.6)
        c = (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b + c
        y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x
        y = math.expm1(a * y * y)
    else:
        y = ((1 / (((degrees + 6) / (degrees * y) - 0.089 * d - 0.822) * (degrees + 2) * 3) + 0.5 / (degrees + 4)) * y
             - 1) * (degrees + 1) / (degrees + 2) + 1 / y  # fmt: skip
    return math.sqrt(degrees * y)


def prediction_interval(values: Floats) -> tuple[float, float]:
    """Where one more of such values lies 95 times of 100, in normal theory: mean ± t(k - 1) s sqrt(1 + 1/k)."""
    k, mean = len(values), float(values.mean())
    reach = student_t(k - 1) * float(values.std(ddof=1)) * math.sqrt(1 + 1 / k)
    return mean - reach, mean + reach


def wilson(rates: Floats, n: Floats, z: float | Floats = Z) -> tuple[Floats, Floats]:
    """Wilson's score interval of rates out of `n` completions each (1927, "Probable inference")."""
    square = np.asarray(z) ** 2
    centre = (rates + square / (2 * n)) / (1 + square / n)
    half = np.asarray(z) * np.sqrt(rates * (1 - rates) / n + square / (4 * n * n)) / (1 + square / n)
    return np.clip(np.minimum(centre - half, rates), 0, 1), np.clip(np.maximum(centre + half, rates), 0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Spreads:
    """How far the means of rows are known: what their intervals are made of, each (rows,).

    Attributes:
        means: of the rows; NaN where there is no score.
        errors: their standard errors, clustered by prompt; NaN below two prompts.
        n: completions.
        prompts: those that have a score.
    """

    means: Floats
    errors: Floats
    n: Floats
    prompts: Floats


def spreads(sums: Floats, counts: Floats) -> Spreads:
    """Means of rows of cluster sums and counts, (rows, clusters), with their standard errors."""
    n, prompts = counts.sum(axis=1), (counts > 0).sum(axis=1).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.where(n > 0, sums.sum(axis=1) / n, np.nan)
        left = sums - means[:, None] * counts
        errors = np.sqrt((left * left).sum(axis=1) * prompts / (prompts - 1)) / n
    errors[prompts < 2] = np.nan
    # What rounding leaves of equal scores is no spread.
    errors[errors <= 1e-12 * np.abs(means)] = 0.0
    return Spreads(means, errors, n, prompts)


def rate_ends(found: Spreads) -> tuple[Floats, Floats]:
    """Wilson's interval of each rate; NaN below two prompts.

    Completions of one prompt may be alike. The effective number of completions is the one at which so many
    independent ones would have the standard error that there is; of a rate of 0 or 1, which has none, the prompts.
    """
    rates, n, prompts = found.means, found.n, found.prompts
    with np.errstate(divide="ignore", invalid="ignore"):
        own = found.errors**2 * (prompts - 1) / prompts
        several = n > prompts
        own = np.where(several, own * prompts / (prompts - 1) * (n - 1) / n, own)
        effective = np.where(own > 0, rates * (1 - rates) / own, prompts)
        constant = (own == 0) & (rates > 0) & (rates < 1)  # a share that every completion has
        z = np.array([student_t(int(one) - 1) if many else Z for one, many in zip(prompts, several, strict=True)])
        low, high = wilson(rates, np.maximum(effective, 1e-9), z)
    low, high = np.where(constant, rates, low), np.where(constant, rates, high)
    low[~(prompts >= 2)] = high[~(prompts >= 2)] = np.nan
    return low, high


def t_ends(scale: Scale, found: Spreads) -> tuple[Floats, Floats]:
    """Student's t interval of each mean: on the logarithm where means compare by ratio; NaN below two prompts."""
    reach = found.errors * np.array([student_t(int(one) - 1) if one >= 2 else np.nan for one in found.prompts])
    if scale.kind != "ratio":
        return found.means - reach, found.means + reach
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        factor = np.exp(np.where(found.means > 0, reach / found.means, np.nan))
        positive = found.means / factor, found.means * factor
    plain = found.means - reach, found.means + reach
    return tuple(np.where(found.means > 0, own, other) for own, other in zip(positive, plain, strict=True))  # type: ignore[return-value] # two of two


def bootstrap_t_ends(scale: Scale, found: Spreads, low_t: Floats, high_t: Floats) -> tuple[Floats, Floats]:
    """Intervals of means from the 2.5 and 97.5 percentiles of their resampled t statistics.

    Args:
        scale: whose ends no interval goes beyond; one of ratios stays above 0.
        found: the means.
        low_t: the lower percentile, (rows,); NaN where too little was resampled: Student's t instead.
        high_t: the upper one.
    """
    low, high = t_ends(scale, found)
    known = (found.prompts >= SMALLEST_BOOTSTRAP) & np.isfinite(low_t) & np.isfinite(high_t) & (found.errors > 0)
    own_low, own_high = found.means - high_t * found.errors, found.means - low_t * found.errors
    if scale.kind == "ratio":
        own_low = np.where(own_low > 0, own_low, low)
    low, high = np.where(known, own_low, low), np.where(known, own_high, high)
    low, high = np.fmin(low, found.means), np.fmax(high, found.means)
    low[np.isnan(found.errors)] = high[np.isnan(found.errors)] = np.nan
    if scale.low is not None:
        low = np.maximum(low, scale.low)
    if scale.high is not None:
        high = np.minimum(high, scale.high)
    return low, high


def correlations(sums: Floats, counts: Floats, other_sums: Floats, other_counts: Floats) -> Floats:
    """The correlation of the mean of each row with that of the same row of others, over clusters; 0 without spread."""
    first, second = (
        table - np.nan_to_num(spreads(table, numbers).means)[:, None] * numbers
        for table, numbers in ((sums, counts), (other_sums, other_counts))
    )
    sizes = np.sqrt((first * first).sum(axis=1) * (second * second).sum(axis=1))
    together = np.divide((first * second).sum(axis=1), sizes, out=np.zeros(len(sizes)), where=sizes > 1e-12)
    return np.asarray(np.clip(together, -1, 1))


def paired_rate_ends(
    own: tuple[Floats, Floats], base: tuple[Floats, Floats], link: Scale | None
) -> tuple[Floats, Floats]:
    """The ends of differences of rates, row by row, from sums and counts by prompt; in log-odds where `link` is."""
    first, second = spreads(*own), spreads(*base)
    correlation = correlations(*own, *base)
    ends = [rate_ends(first), rate_ends(second)]
    if link is None:
        values = (first.means, second.means)
    else:
        values = (link.forward(first.means, first.n), link.forward(second.means, second.n))
        ends = [log_odds_ends(*end, one.n) for end, one in zip(ends, (first, second), strict=True)]
    (low, high), (other_low, other_high) = ends
    return rate_difference_ends(values, (low, other_low), (high, other_high), correlation)


def rate_difference_ends(
    rates: tuple[Floats, Floats], lows: tuple[Floats, Floats], highs: tuple[Floats, Floats], correlation: Floats
) -> tuple[Floats, Floats]:
    """Newcombe's interval of the first minus the second of two rates that are paired.

    The ends of each rate's own interval are put together by their correlation (Newcombe 1998, "Improved confidence
    intervals for the difference between binomial proportions based on paired data", method 10; in general the method
    of variance estimates recovery, Zou and Donner 2008). It serves log-odds as well, with the ends of those.

    Args:
        rates: the two.
        lows: the lower ends of their intervals.
        highs: the upper ones.
        correlation: of their estimates; 0 where one of them has no spread.
    """
    first, second = rates
    down, up = first - lows[0], highs[0] - first
    other_down, other_up = second - lows[1], highs[1] - second
    both = 2 * correlation
    with np.errstate(invalid="ignore"):
        low = first - second - np.sqrt(np.maximum(down**2 - both * down * other_up + other_up**2, 0))
        high = first - second + np.sqrt(np.maximum(up**2 - both * up * other_down + other_down**2, 0))
    return low, high


def log_odds_ends(low: Floats, high: Floats, n: Floats) -> tuple[Floats, Floats]:
    """The ends of rates' intervals in log-odds.

    Where a rate is 0 or 1 its log-odds have no end on that side. The end that stands there is that of the interval of
    Jeffreys (Brown, Cai and DasGupta 2001), far out and finite: the beta quantile of half a success in `n`.
    """
    tail = np.array([_jeffreys(float(one)) for one in n])
    with np.errstate(divide="ignore", invalid="ignore"):
        return (
            np.log(np.maximum(low, tail)) - np.log1p(-np.maximum(low, tail)),
            np.log1p(-np.maximum(1 - high, tail)) - np.log(np.maximum(1 - high, tail)),
        )


def _jeffreys(n: float) -> float:
    """The 2.5 % quantile of beta(½, n + ½), by the first term of its series: it lies close to 0."""
    if not n > 0:
        return math.nan
    log_beta = math.lgamma(0.5) + math.lgamma(n + 0.5) - math.lgamma(n + 1)
    return ((1 - LEVEL) / 2 * math.exp(log_beta) / 2) ** 2
