"""Matching: the alpha at which the base model shows a wanted mean, from a measured dose curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.stats import RESAMPLES, Estimate, Floats, estimate, plain_means, resampled_means
from windowshift.core.measure.grid import Rows, tabulate

MIN_POINTS = 3
OUT_OF_REACH = 0.025  # of the resamples: then an end of the 95 % interval lies beyond what was measured


@dataclass(frozen=True, slots=True)
class Match:
    """The alpha at which the smoothed dose curve has the target's mean.

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


def match(alphas: Sequence[float], points: Sequence[Rows], target: Rows, *, scale: Scale, seed: int = 0) -> Match:
    """Solve a dose curve for the alpha of a target.

    The points are smoothed by a local line (Cleveland 1979, Gaussian weights as wide as neighbours are
    apart), on the behaviour's link scale, and made monotone (pool adjacent violators): so
    neighbours bear on each other, and there is one answer. It is found by linear interpolation.

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
    smoother = _smoother(at)
    rising = bool(means[-2] >= means[0])
    curve = _monotone(smoother @ linked[:-1], rising)
    alpha = _solve(at, curve, float(linked[-1]), rising)
    drawn = scale.forward(samples, n)
    solved = np.array(
        [
            _clipped(at, _monotone(smoother @ row[:-1], rising), row[-1], rising)
            for row in drawn
            if np.isfinite(row).all()
        ]
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


def _smoother(at: Floats) -> Floats:
    """The matrix [points, points] that smooths values at `at` by local lines; weights go by rank."""
    rank = np.arange(len(at), dtype=np.float64)
    rows = []
    for place, x in enumerate(at):
        weights = np.exp(-0.5 * (rank - place) ** 2)
        design = np.stack([np.ones_like(at), at - x], axis=1)
        rows.append(np.linalg.solve(design.T @ (weights[:, None] * design), design.T * weights)[0])
    return np.stack(rows)


def _monotone(values: Floats, rising: bool) -> Floats:
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
    """Where a monotone curve has the target; its end where it has it nowhere."""
    if not rising:
        at, curve = at[::-1], curve[::-1]
    return float(np.interp(target, curve, at))


def _end(solved: Floats, at: Floats, *, low: bool) -> float | None:
    edge = at[0] if low else at[-1]
    if not len(solved) or float((solved == edge).mean()) > OUT_OF_REACH:
        return None
    return float(np.percentile(solved, 2.5 if low else 97.5))
