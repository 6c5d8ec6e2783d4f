"""The bootstrap clustered by prompt: vectorised, seeded, the same for every number of a report.

Every resample draws a Poisson(1) weight for each prompt (Chamandy et al. 2012, "Estimating
uncertainty for massive data streams"; for more than a handful of prompts it equals the multinomial
bootstrap). The weight of prompt number i depends on nothing but the seed and i, so all cells share
their resamples, comparisons are paired, and one table of weights serves any number of prompts.
Intervals are 95 % percentile intervals. A missing value is NaN in data and weighs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windowshift.core.contract.records import Summary

Floats = NDArray[np.float64]
RESAMPLES = 2000
LEVEL = 0.95
EVALUATION, DATA = 0, 1
"""Streams of weights: eval prompts and D's prompts are resampled independently."""
_SMALLEST_TABLE = 256
_LARGEST_BLOCK = 8_000_000  # weights in memory at once: 64 MB
_CHUNK = 256  # columns whose percentiles are taken at once


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval (None where it is undefined) and what it rests on.

    The interval holds the number. A statistic that resampling moves one way (a spread, R²: noise is added to every
    mean) may lie beyond the percentiles of its resamples; its interval then reaches to it.

    `n` counts completions for a mean or a comparison, points for a fit, conditions for a spread.
    """

    value: float
    low: float | None
    high: float | None
    n: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """(low, high), or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@lru_cache(maxsize=4)
def _table(columns: int, resamples: int, seed: int, stream: int, block: int) -> Floats:
    rng = np.random.default_rng([seed, stream, block])
    weights = rng.poisson(1.0, (resamples, columns)).astype(np.float64)
    weights.flags.writeable = False
    return weights


def weight_blocks(n: int, resamples: int, seed: int, stream: int = EVALUATION) -> Iterator[Floats]:
    """Yield the bootstrap weights of `n` clusters in blocks of shape (some resamples, n)."""
    columns = _SMALLEST_TABLE
    while columns < n:
        columns *= 2
    rows = max(1, min(resamples, _LARGEST_BLOCK // columns))
    make = _table if rows == resamples else _table.__wrapped__  # many blocks would only flush the cache
    for block, start in enumerate(range(0, resamples, rows)):
        yield make(columns, min(rows, resamples - start), seed, stream, block)[:, :n]


def resampled_means(
    sums: Floats, counts: Floats, resamples: int = RESAMPLES, seed: int = 0, stream: int = EVALUATION
) -> Floats:
    """Means of each row under each resample.

    Args:
        sums: (rows, clusters), the sum of a row's values in each cluster.
        counts: (rows, clusters), how many values that sum has; 0 where there is none.
        resamples: how many.
        seed: of the weights.
        stream: `EVALUATION` or `DATA`.

    Returns:
        (resamples, rows); NaN where a resample holds no value of the row.
    """
    # Rows nearly always have the same prompts: count the distinct patterns only.
    patterns: dict[bytes, int] = {}
    which = np.array([patterns.setdefault(row.tobytes(), len(patterns)) for row in counts], dtype=np.intp)
    distinct = np.zeros((len(patterns), counts.shape[1]))
    distinct[which] = counts
    means = np.empty((resamples, len(sums)))
    start = 0
    for weights in weight_blocks(sums.shape[1], resamples, seed, stream):
        block = means[start : start + len(weights)]
        np.matmul(weights, sums.T, out=block)
        totals = weights @ distinct.T
        totals[totals == 0] = np.nan
        block /= totals[:, which] if len(patterns) > 1 else totals
        start += len(weights)
    return means


def plain_means(sums: Floats, counts: Floats) -> Floats:
    """The mean of each row of cluster sums and counts; NaN where there is no value."""
    totals = counts.sum(axis=-1)
    return ratio(sums.sum(axis=-1), totals)


def intervals(samples: Floats) -> tuple[Floats, Floats]:
    """Percentile intervals of columns.

    Args:
        samples: (resamples, columns).

    Returns:
        Low and high ends, (columns,); NaN where more than half of the resamples are undefined.
    """
    low, high = np.full(samples.shape[1], np.nan), np.full(samples.shape[1], np.nan)
    ends = [100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2]
    for start in range(0, samples.shape[1], _CHUNK):
        part = np.ascontiguousarray(samples[:, start : start + _CHUNK].T)  # a column's resamples side by side
        finite = np.isfinite(part)
        whole = finite.all(axis=1)
        columns = start + np.flatnonzero(whole)
        if len(columns):
            low[columns], high[columns] = np.percentile(part[whole], ends, axis=1)
        for column in np.flatnonzero(~whole & (finite.mean(axis=1) > 0.5)):
            low[start + column], high[start + column] = np.percentile(part[column, finite[column]], ends)
    return low, high


def estimate(value: float, samples: Floats, n: int) -> Estimate | None:
    """A number with the interval of its resampled values, (resamples,); None where it is undefined."""
    if not math.isfinite(value):
        return None
    low, high = intervals(samples[:, None])
    return estimated(value, low[0], high[0], n)


def estimated(value: float, low: float, high: float, n: int) -> Estimate | None:
    """A number with the ends of its interval, NaN where they are undefined; None where the number is."""
    if not math.isfinite(value):
        return None
    if not (math.isfinite(low) and math.isfinite(high)):
        return Estimate(float(value), None, None, n)
    return Estimate(float(value), min(float(low), float(value)), max(float(high), float(value)), n)


def ols(x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Slope, intercept and R² of the least-squares line of y on x over the last axis.

    Undefined ones are NaN: the slope where x does not vary, R² where x or y does not.
    """
    dx = x - x.mean(axis=-1, keepdims=True)
    dy = y - y.mean(axis=-1, keepdims=True)
    xx, yy, xy = (dx * dx).sum(axis=-1), (dy * dy).sum(axis=-1), (dx * dy).sum(axis=-1)
    # What rounding leaves of a constant is no variation.
    x_varies = xx > 1e-20 * (1 + (x * x).sum(axis=-1))
    y_varies = yy > 1e-20 * (1 + (y * y).sum(axis=-1))
    slope = np.divide(xy, xx, out=np.full(xx.shape, np.nan), where=x_varies)
    r2 = np.divide(xy * xy, xx * yy, out=np.full(xx.shape, np.nan), where=x_varies & y_varies)
    return slope, y.mean(axis=-1) - slope * x.mean(axis=-1), r2


def by_cluster(values: ArrayLike, clusters: ArrayLike) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Sums and counts of values by cluster: (ids in ascending order, sums, counts).

    NaN is left out of both; a cluster that has nothing else keeps its place, and so its weights.
    """
    data = np.asarray(values, dtype=np.float64)
    there = np.isfinite(data)
    ids, which = np.unique(np.asarray(clusters, dtype=np.int64), return_inverse=True)
    sums = np.bincount(which[there], weights=data[there], minlength=len(ids)).astype(np.float64)
    return ids, sums, np.bincount(which[there], minlength=len(ids)).astype(np.float64)


def mean_summary(
    values: Sequence[float | None] | ArrayLike,
    clusters: ArrayLike,
    truncated: Sequence[bool] | ArrayLike,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Summary:
    """Summarise the scores of one cell.

    Args:
        values: one a completion; None or NaN where the score is missing.
        clusters: the prompt number of each completion.
        truncated: whether each completion was cut off; counted where it has a score.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        `Summary`: sd is the sample's (ddof 1); sd and interval are None below two scores or two prompts.
    """
    data = np.array(values, dtype=np.float64)  # None becomes NaN
    there = np.isfinite(data)
    n = int(there.sum())
    cut = int(np.asarray(truncated, dtype=bool)[there].sum()) if n else 0
    missing = len(data) - n
    if n == 0:
        return Summary(0, missing, cut, None, None, None, None)
    mean = float(data[there].mean())
    if n < 2:
        return Summary(n, missing, cut, mean, None, None, None)
    _, sums, counts = by_cluster(data, clusters)
    low = high = None
    if np.count_nonzero(counts) >= 2:
        found = estimate(mean, resampled_means(sums[None], counts[None], resamples, seed)[:, 0], n)
        low, high = (found.low, found.high) if found else (None, None)
    return Summary(n, missing, cut, mean, float(data[there].std(ddof=1)), low, high)


@dataclass(frozen=True, slots=True, eq=False)
class PairedMeans:
    """Means of two cells over the prompts that both have, with their resamples, (resamples,), and completions."""

    mean: float
    other: float
    samples: Floats
    other_samples: Floats
    n: float
    other_n: float
    prompts: int


def paired_means(
    values: ArrayLike,
    clusters: ArrayLike,
    other_values: ArrayLike,
    other_clusters: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedMeans | None:
    """Means of two cells, paired by prompt: prompts that only one of them has scores of are left out.

    A prompt keeps the weights that it has in the cell as a whole, so that the intervals are those of the whole grid.
    None below two prompts in common.
    """
    ids, sums, counts = by_cluster(values, clusters)
    other_ids, other_sums, other_counts = by_cluster(other_values, other_clusters)
    every = np.union1d(ids, other_ids)
    tables = np.zeros((4, len(every)))
    tables[:2, np.searchsorted(every, ids)] = sums, counts
    tables[2:, np.searchsorted(every, other_ids)] = other_sums, other_counts
    tables[:, (tables[1] == 0) | (tables[3] == 0)] = 0.0
    prompts = int(np.count_nonzero(tables[1]))
    if prompts < 2:
        return None
    both, numbers = tables[[0, 2]], tables[[1, 3]]
    means, drawn = plain_means(both, numbers), resampled_means(both, numbers, resamples, seed)
    n, other_n = numbers.sum(axis=1)
    return PairedMeans(float(means[0]), float(means[1]), drawn[:, 0], drawn[:, 1], float(n), float(other_n), prompts)


def ratio(a: Floats, b: Floats) -> Floats:
    """The quotient a / b, NaN where b is 0."""
    quotient: Floats = np.divide(a, b, out=np.full(np.broadcast(a, b).shape, np.nan), where=b != 0)
    return quotient
