"""The bootstrap clustered by prompt: vectorised, seeded, the same for every number of a report.

Every resample draws a Poisson(1) weight for each prompt (Chamandy et al. 2012, "Estimating
uncertainty for massive data streams"; for more than a handful of prompts it equals the multinomial
bootstrap). The weight of prompt number i depends on nothing but the seed and i, so all cells share
their resamples, comparisons are paired, and one table of weights serves any number of prompts.
A missing value is NaN in data and weighs nothing. What the interval of a mean is stands in
`windowshift.core.contract.confidence`; the draws of means here have those ends as their percentiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windowshift.core.contract.confidence import LEVEL as LEVEL
from windowshift.core.contract.confidence import (
    SMALLEST_BOOTSTRAP,
    Spreads,
    bootstrap_t_ends,
    log_odds_ends,
    paired_rate_ends,
    rate_ends,
    spreads,
)
from windowshift.core.contract.confidence import (
    Floats as Floats,
)
from windowshift.core.contract.estimate import Estimate as Estimate
from windowshift.core.contract.records import Summary
from windowshift.core.contract.scale import Scale

RESAMPLES = 2000
EVALUATION, DATA, CERTAIN, PHRASES, HALVES = range(5)
"""Streams: eval prompts and D's prompts are resampled independently, rates of 0 and 1 and phrases by themselves."""
_SMALLEST_TABLE = 256
_LARGEST_BLOCK = 8_000_000  # weights in memory at once: 64 MB
_CHUNK = 256  # columns that are worked on at once
_ENDS = (100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2)
_PLAIN = Scale.difference()


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
    for start in range(0, samples.shape[1], _CHUNK):
        part = np.ascontiguousarray(samples[:, start : start + _CHUNK].T)  # a column's resamples side by side
        finite = np.isfinite(part)
        whole = finite.all(axis=1)
        columns = start + np.flatnonzero(whole)
        if len(columns):
            low[columns], high[columns] = np.percentile(part[whole], _ENDS, axis=1)
        for column in np.flatnonzero(~whole & (finite.mean(axis=1) > 0.5)):
            low[start + column], high[start + column] = np.percentile(part[column, finite[column]], _ENDS)
    return low, high


def estimate(value: float, samples: Floats, n: int) -> Estimate | None:
    """A number with the interval of its resampled values, (resamples,); None where it is undefined."""
    if not math.isfinite(value):
        return None
    low, high = intervals(samples[:, None])
    return estimated(value, low[0], high[0], n)


def estimated(
    value: float, low: float, high: float, n: int, prompts: int | None = None, seeds: int = 0
) -> Estimate | None:
    """A number with the ends of its interval, NaN where they are undefined; None where the number is."""
    if not math.isfinite(value):
        return None
    if not (math.isfinite(low) and math.isfinite(high)):
        return Estimate(float(value), None, None, n, prompts, seeds)
    return Estimate(float(value), min(float(low), float(value)), max(float(high), float(value)), n, prompts, seeds)


@dataclass(frozen=True, slots=True, eq=False)
class Means:
    """Means of rows with their intervals, and draws that have the ends of these as their percentiles.

    Attributes:
        values: the means, (rows,); NaN where there is no score.
        low: the lower ends, (rows,); NaN below two prompts.
        high: the upper ends.
        draws: (resamples, rows), joint over all rows; NaN where there is no interval.
        n: completions, (rows,).
        prompts: prompts with a score, (rows,).
    """

    values: Floats
    low: Floats
    high: Floats
    draws: Floats
    n: Floats
    prompts: Floats


def sampled_means(
    scale: Scale,
    sums: Floats,
    counts: Floats,
    resamples: int = RESAMPLES,
    seed: int = 0,
    stream: int = EVALUATION,
    rows: Sequence[int] | None = None,
) -> Means:
    """Means of rows of cluster sums and counts, (rows, clusters), with intervals and joint draws.

    Args:
        scale: of the scores.
        sums: as in `resampled_means`.
        counts: likewise.
        resamples: how many draws.
        seed: of the weights.
        stream: `EVALUATION` or `DATA`.
        rows: numbers that name the rows, for the draws of rates of 0 or 1, which no prompt spreads; None: 0, 1, ...
    """
    found, drawn = spreads(sums, counts), resampled_means(sums, counts, resamples, seed, stream)
    low, high = _ends(scale, found, sums, counts, drawn, seed, stream)
    _stretch(scale, found, low, high, drawn, (seed, stream), range(len(sums)) if rows is None else rows)
    return Means(found.means, low, high, drawn, found.n, found.prompts)


def _ends(
    scale: Scale, found: Spreads, sums: Floats, counts: Floats, drawn: Floats, seed: int, stream: int
) -> tuple[Floats, Floats]:
    if scale.kind == "rate":
        return rate_ends(found)
    low_t, high_t = (np.full(len(sums), np.nan) for _ in range(2))
    some = np.flatnonzero((found.prompts >= SMALLEST_BOOTSTRAP) & (found.errors > 0))
    for start in range(0, len(some), _CHUNK):
        rows = some[start : start + _CHUNK]
        statistics = _resampled_t(found.means[rows], sums[rows], counts[rows], drawn[:, rows], seed, stream)
        low_t[rows], high_t[rows] = intervals(statistics)
    return bootstrap_t_ends(scale, found, low_t, high_t)


def _resampled_t(means: Floats, sums: Floats, counts: Floats, drawn: Floats, seed: int, stream: int) -> Floats:
    """The t statistic of each resampled mean against the mean, (resamples, rows)."""
    found = np.empty_like(drawn)
    each = counts.max(axis=1)
    alike = bool(((counts == 0) | (counts == each[:, None])).all())  # every prompt has as many scores, or none
    start = 0
    for weights in weight_blocks(sums.shape[1], len(drawn), seed, stream):
        block = drawn[start : start + len(weights)]
        totals = weights @ counts.T
        if alike:
            crossed, squared = block * totals * each, totals * each
        else:
            crossed, squared = weights @ (sums * counts).T, weights @ (counts * counts).T
        left = weights @ (sums * sums).T - 2 * block * crossed + block * block * squared
        with np.errstate(divide="ignore", invalid="ignore"):
            own = (block - means) / (np.sqrt(np.maximum(left, 0)) / totals)
        # A resample of a prompt or two has no spread to speak of: it is none.
        own[~np.isfinite(own)] = np.nan
        found[start : start + len(weights)] = own
        start += len(weights)
    return found


def _stretch(
    scale: Scale,
    found: Spreads,
    low: Floats,
    high: Floats,
    drawn: Floats,
    seeds: tuple[int, int],
    names: Sequence[int],
) -> None:
    """Stretch resampled means, in place, so that their percentiles are the ends of the intervals.

    What lies on either side of a mean is stretched on the link scale, by a factor of its own. Factors are the same
    where means differ by a factor alone, so that what cancels goes on cancelling.
    """
    known = np.isfinite(low) & np.isfinite(high)
    drawn[:, ~known] = np.nan
    centre, ends = _linked(scale, found, low, high)
    for start in range(0, drawn.shape[1], _CHUNK):
        rows = start + np.flatnonzero(known[start : start + _CHUNK] & np.isfinite(centre[start : start + _CHUNK]))
        if not len(rows):
            continue
        away = drawn[:, rows] - found.means[rows]
        if scale.kind == "rate":
            for place in np.flatnonzero((found.errors[rows] == 0) & (low[rows] < high[rows])):
                rng = np.random.default_rng([*seeds, CERTAIN, names[rows[place]]])
                away[:, place] = rng.standard_normal(len(away))
        down, up = intervals(away)
        factors = [
            np.divide(end[rows] - centre[rows], edge, out=np.zeros(len(rows)), where=edge * sign > 0)
            for end, edge, sign in zip(ends, (down, up), (-1, 1), strict=True)
        ]
        away *= np.where(away < 0, *factors)
        drawn[:, rows] = _from_link(scale, centre[rows] + away)


def _linked(scale: Scale, found: Spreads, low: Floats, high: Floats) -> tuple[Floats, tuple[Floats, Floats]]:
    """Means and the ends of their intervals on the link scale; NaN for a mean that has no place there."""
    if scale.kind == "difference":
        return found.means, (low, high)
    if scale.kind == "rate":
        return scale.forward(found.means, found.n), log_odds_ends(low, high, found.n)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(found.means > 0, np.log2(found.means), np.nan), (np.log2(low), np.log2(high))


def _from_link(scale: Scale, values: Floats) -> Floats:
    if scale.kind == "difference":
        return values
    return np.asarray(np.exp2(values) if scale.kind == "ratio" else scale.back(values, np.inf))


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
    scale: Scale = _PLAIN,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Summary:
    """Summarise the scores of one cell.

    Args:
        values: one a completion; None or NaN where the score is missing.
        clusters: the prompt number of each completion.
        truncated: whether each completion was cut off; counted where it has a score.
        scale: of the scores.
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
    found = spreads(sums[None], counts[None])
    drawn = np.empty((0, 1)) if scale.kind == "rate" else resampled_means(sums[None], counts[None], resamples, seed)
    ends = _ends(scale, found, sums[None], counts[None], drawn, seed, EVALUATION)
    low, high = (float(end[0]) if np.isfinite(end[0]) else None for end in ends)
    if low is not None and high is not None:  # a mean by another order of adding up may be off by rounding
        low, high = min(low, mean), max(high, mean)
    return Summary(n, missing, cut, mean, float(data[there].std(ddof=1)), low, high)


class PairedMeans:
    """Means of two cells over the prompts that both have, as a comparison of any scale takes them.

    Args:
        sums: (2, clusters): the sums of the first and of the second one's scores by prompt.
        counts: their numbers; 0 in both for a prompt that only one of them has.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        known: their draws where they are there already, on the scale that will be asked for.
    """

    def __init__(
        self, sums: Floats, counts: Floats, resamples: int = RESAMPLES, seed: int = 0, known: Means | None = None
    ) -> None:
        self._sums, self._counts, self._bootstrap, self._known = sums, counts, (resamples, seed), known
        self.mean, self.other = (float(one) for one in plain_means(sums, counts))
        self.n, self.other_n = (float(one) for one in counts.sum(axis=1))
        self.prompts = int(np.count_nonzero(counts[0]))

    def on(self, scale: Scale) -> Means:
        """Both, with intervals and draws."""
        if self._known is not None:
            return self._known
        return sampled_means(scale, self._sums, self._counts, *self._bootstrap)

    def rate_ends(self, link: Scale | None) -> tuple[float, float]:
        """The ends of the first rate minus the second; in log-odds where `link` is given."""
        own, other = ((self._sums[row : row + 1], self._counts[row : row + 1]) for row in (0, 1))
        low, high = paired_rate_ends(own, other, link)
        return float(low[0]), float(high[0])


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
    pair = PairedMeans(tables[[0, 2]], tables[[1, 3]], resamples, seed)
    return pair if pair.prompts >= 2 else None


def ratio(a: Floats, b: Floats) -> Floats:
    """The quotient a / b, NaN where b is 0."""
    quotient: Floats = np.divide(a, b, out=np.full(np.broadcast(a, b).shape, np.nan), where=b != 0)
    return quotient
