"""Matching: the alpha at which the base model shows a wanted mean, from a measured dose curve."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.stats import RESAMPLES, Estimate, Floats, estimate, plain_means, resampled_means
from windowshift.core.measure.grid import PromptScores, tabulate

MIN_POINTS = 3
OUT_OF_REACH = 0.025  # of the resamples: then an end of the 95 % interval lies beyond what was measured


@dataclass(frozen=True, slots=True)
class Match:
    """The alpha at which the dose curve has the target's mean.

    `alpha` is None where the target is out of reach, and `nearest` is the end of the curve next to it.
    `alpha_low` and `alpha_high` are the 95 % interval, from a bootstrap over the eval prompts that the curve
    and the target share; None where that end lies beyond the curve. `expected` is the curve's mean at
    `alpha`, which differs from the target's by rounding alone.
    """

    target: Estimate
    alpha: float | None
    alpha_low: float | None
    alpha_high: float | None
    nearest: float
    curve_low: float
    curve_high: float


def match(
    alphas: Sequence[float], points: Sequence[PromptScores], target: PromptScores, *, scale: Scale, seed: int = 0
) -> Match:
    """Solve a dose curve for the alpha of a target.

    The points are made monotone on the behaviour's link scale (pool adjacent violators), so that there is one answer,
    and alpha is interpolated over the values of what was pooled (PCHIP: Fritsch and Carlson 1980, monotone and without
    overshoot). Nothing is smoothed beyond that: a local line flattens every bend of the curve, which put the mean at a
    matched dose up to 17 % off its target, by the same amount however much was measured.

    Args:
        alphas: in ascending order, (points,).
        points: prompt numbers and scores under each alpha.
        target: prompt numbers and scores of what is to be matched.
        scale: of the behaviour.
        seed: of the bootstrap.

    Points whose mean has no place on the scale (0 where means compare by ratio) are left out.

    Raises:
        SpecError: fewer than three points are left, or the target has no score.
    """
    sums, counts = tabulate([*points, target])
    means = plain_means(sums, counts)
    linked = scale.forward(means, counts.sum(axis=1))
    sound = np.isfinite(linked)
    if not sound[-1]:
        what = "no score above 0" if scale.kind == "ratio" else "no score"
        raise SpecError(f"what is to be matched has {what} on the base model: leave it out of match")
    if sound[:-1].sum() < MIN_POINTS:
        raise SpecError("there is no dose curve to match on: under most alphas the base model says nothing")
    sums, counts, means, linked = sums[sound], counts[sound], means[sound], linked[sound]
    samples, n = resampled_means(sums, counts, RESAMPLES, seed), counts.sum(axis=1)
    at = np.asarray(alphas, dtype=np.float64)[sound[:-1]]
    rising = bool(means[-2] >= means[0])
    curve = monotone(linked[:-1], rising)
    alpha = _solve(at, curve, float(linked[-1]), rising)
    drawn = scale.forward(samples, n)
    solved = np.array(
        [_clipped(at, monotone(row[:-1], rising), row[-1], rising) for row in drawn if np.isfinite(row).all()]
    )
    wanted = estimate(float(means[-1]), samples[:, -1], int(counts[-1].sum()))
    assert wanted is not None
    shown = scale.back(curve, n[:-1])
    return Match(
        target=wanted,
        alpha=alpha,
        alpha_low=_end(solved, at, low=True) if alpha is not None else None,
        alpha_high=_end(solved, at, low=False) if alpha is not None else None,
        nearest=_clipped(at, curve, float(linked[-1]), rising),
        curve_low=float(shown.min()),
        curve_high=float(shown.max()),
    )


def monotone(values: Floats, rising: bool) -> Floats:
    """The nearest monotone values, by pooling adjacent violators (Ayer et al. 1955)."""
    sign = 1.0 if rising else -1.0
    means: list[float] = []
    sizes: list[int] = []
    for value in sign * values:
        means.append(float(value))
        sizes.append(1)
        while len(means) > 1 and means[-2] > means[-1]:
            value, size = means.pop(), sizes.pop()
            means[-1] = (means[-1] * sizes[-1] + value * size) / (sizes[-1] + size)
            sizes[-1] += size
    return sign * np.repeat(means, sizes)


def _solve(at: Floats, curve: Floats, target: float, rising: bool) -> float | None:
    if not curve.min() <= target <= curve.max():
        return None
    return _clipped(at, curve, target, rising)


def _clipped(at: Floats, curve: Floats, target: float, rising: bool) -> float:
    """Where a monotone curve has the target; its end where it has it nowhere.

    Alphas of one value, which were pooled, count as one point in their middle.
    """
    if not rising:
        at, curve = at[::-1], curve[::-1]
    if not curve[0] <= target <= curve[-1]:
        return float(at[0] if target < curve[0] else at[-1])
    values: list[float] = []
    groups: list[list[float]] = []
    for value, alpha in zip(curve.tolist(), at.tolist(), strict=True):
        if values and value - values[-1] <= 1e-12 * (1 + abs(value)):
            groups[-1].append(alpha)
        else:
            values.append(value)
            groups.append([alpha])
    return _pchip(values, [sum(group) / len(group) for group in groups], target)


def _pchip(x: list[float], y: list[float], at: float) -> float:
    """A monotone cubic through ascending points, at one place between the first and the last.

    As `scipy.interpolate.PchipInterpolator` (slopes of Fritsch and Butland 1984), which takes ten times as long over
    a whole curve: there is one curve a resample, and one place on each.
    """
    if len(x) == 1:
        return y[0]
    k = min(max(bisect_right(x, at) - 1, 0), len(x) - 2)
    width, secant = x[k + 1] - x[k], (y[k + 1] - y[k]) / (x[k + 1] - x[k])
    first, second = (_slope(x, y, knot) for knot in (k, k + 1))
    t = (at - x[k]) / width
    cubic = (first + second - 2 * secant) * t + (3 * secant - 2 * first - second)
    return y[k] + width * t * (first + t * cubic)


def _slope(x: list[float], y: list[float], k: int) -> float:
    """The slope of the cubic at a knot."""
    if len(x) == 2:
        return (y[1] - y[0]) / (x[1] - x[0])
    if k in (0, len(x) - 1):
        one, two = (1, 2) if k == 0 else (len(x) - 2, len(x) - 3)
        near, far = abs(x[one] - x[k]), abs(x[two] - x[one])
        inner, outer = (y[one] - y[k]) / (x[one] - x[k]), (y[two] - y[one]) / (x[two] - x[one])
        slope = ((2 * near + far) * inner - near * outer) / (near + far)
        if slope * inner <= 0:
            return 0.0
        return 3 * inner if inner * outer <= 0 and abs(slope) > 3 * abs(inner) else slope
    before, after = x[k] - x[k - 1], x[k + 1] - x[k]
    left, right = (y[k] - y[k - 1]) / before, (y[k + 1] - y[k]) / after
    if left * right <= 0:
        return 0.0
    first, second = 2 * after + before, after + 2 * before
    return (first + second) / (first / left + second / right)


def _end(solved: Floats, at: Floats, *, low: bool) -> float | None:
    edge = at[0] if low else at[-1]
    if not len(solved) or float((solved == edge).mean()) > OUT_OF_REACH:
        return None
    return float(np.percentile(solved, 2.5 if low else 97.5))
