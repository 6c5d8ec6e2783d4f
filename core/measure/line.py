"""The line through the points of a grid: its slope with what it rests on, corrected for noise in x, and tested.

A point is a row of the grid, how surprising its data is (x) and the average uplift (y), each with joint draws. Said of
the line:

- its **slope and intercept** by least squares, with intervals over prompts (and training runs), corrected for the bias
  that noise in x brings: the number stays that of the points;
- the **scatter** of the points about it, Student's t over points: what another choice of train conditions would give,
  and never narrower than what other prompts would;
- the slope **without the attenuation** by noise in x (SIMEX: Cook and Stefanski 1994): the joint draws add the points'
  own noise ½, 1, 1½ and 2 times more, and a parabola is followed back to none;
- how much of each row the line through the other ones **predicts**: 1 - PRESS / (squares about the mean of the
  others), at most 1 and below 0 where the mean does better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from windowshift.core.contract.confidence import student_t
from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.stats import Floats, ols
from windowshift.core.measure.measures import Fit
from windowshift.core.measure.sampled import Sampled

MIN_POINTS = 3
_ADDED = (0.0, 0.5, 1.0, 1.5, 2.0)
_BACK = np.linalg.pinv(np.vander(_ADDED, 3)).T @ np.array([1.0, -1.0, 1.0])
"""The weights of the slopes under added noise in the parabola's value at -1, no noise."""


@dataclass(frozen=True, slots=True, eq=False)
class FittedLine:
    """A line through points, with draws; or a reason why there is none."""

    points: int
    rows: int
    slope: Sampled
    intercept: Sampled
    corrected: Sampled
    predicted: Sampled
    r2: float | None = None
    scatter: float | None = None
    reason: str | None = None

    @classmethod
    def through(cls, points: Sequence[tuple[Sampled, Sampled]], rows: int) -> FittedLine:
        """Fit (x, y) of rows that are done and scored; none through fewer than three, or through points of one x."""
        n = len(points)
        missing = Sampled()
        if n < MIN_POINTS:
            reason = f"a line needs {MIN_POINTS} rows that are done and scored, and {n} of {rows} are"
            return cls(n, rows, missing, missing, missing, missing, reason=reason)
        x, y = (_stacked([point[axis] for point in points]) for axis in (0, 1))
        slope, intercept, r2 = ols(x, y)
        if not np.isfinite(slope[0]):
            reason = "the rows do not differ in how surprising D is"
            return cls(n, rows, missing, missing, missing, missing, reason=reason)

        def sampled(values: Floats, *, leans: bool = False) -> Sampled:
            return Sampled(float(values[0]), values[1:], n, trained=True, leans=leans)

        left = y[0] - intercept[0] - slope[0] * x[0]
        error = float(np.sqrt((left**2).sum() / (n - 2) / ((x[0] - x[0].mean()) ** 2).sum()))
        return cls(
            n,
            rows,
            sampled(slope, leans=True),
            sampled(intercept, leans=True),
            sampled(_unattenuated(x, y, slope)),
            sampled(_predicted(x, y)),
            float(r2[0]) if np.isfinite(r2[0]) else None,
            error,
        )

    def over(self, runs: Sequence[FittedLine]) -> FittedLine:
        """The line with that of each training run."""
        if len(runs) < 2 or not self.slope.there or not all(run.slope.there for run in runs):
            return self
        names = ("slope", "intercept", "corrected", "predicted")
        return replace(self, **{
            name: replace(getattr(self, name), runs=tuple(getattr(run, name) for run in runs)) for name in names
        })  # fmt: skip

    @property
    def fit(self) -> Fit:
        """As the record that reports and screens take."""
        slope = self.slope.estimate
        scatter = None
        if slope is not None and self.scatter is not None:
            reach = student_t(self.points - 2) * self.scatter
            low, high = slope.value - reach, slope.value + reach
            # Points that lie on a line by chance, or because few answers shrink all log-odds alike, are measured with
            # other prompts too where other conditions are chosen.
            if slope.low is not None and slope.high is not None:
                low, high = min(low, slope.low), max(high, slope.high)
            scatter = Estimate(slope.value, low, high, self.points, None, slope.seeds)
        return Fit(
            self.points,
            self.rows,
            slope,
            self.intercept.estimate,
            None if self.r2 is None else Estimate(self.r2, None, None, self.points),
            self.reason,
            scatter,
            self.corrected.estimate,
            self.predicted.estimate,
        )


def _stacked(numbers: Sequence[Sampled]) -> Floats:
    """Values in front of their draws, (1 + resamples, points)."""
    return np.stack([np.concatenate([[one.value], one.draws]) for one in numbers if one.draws is not None], axis=1)


def _unattenuated(x: Floats, y: Floats, slope: Floats) -> Floats:
    """The slope without attenuation, in front of its draws."""
    away = [drawn[1:] - np.nanmean(drawn[1:], axis=0) for drawn in (x, y)]
    slopes = [slope[0]]
    for added in _ADDED[1:]:
        factor = np.sqrt(added)
        found = ols(x[0] + factor * away[0], y[0] + factor * away[1])[0]
        slopes.append(float(np.mean(found[np.isfinite(found)])) if np.isfinite(found).any() else np.nan)
    corrected = float(_BACK @ np.array(slopes))
    known = slope[1:][np.isfinite(slope[1:])]
    centre = known.mean() if len(known) else np.nan
    return np.concatenate([[corrected], corrected + slope[1:] - centre])


def _predicted(x: Floats, y: Floats) -> Floats:
    """The share that the line through the other rows predicts, in front of its draws, from which noise is taken out.

    Noise adds to the squares that are left and to those about the mean by as much as the draws add once more.
    """
    left, about = _press(x, y)
    with np.errstate(divide="ignore", invalid="ignore"):
        corrected = [squares[1:] - 2 * (np.nanmean(squares[1:]) - squares[0]) for squares in (left, about)]
        share = 1 - np.maximum(corrected[0], 0) / corrected[1]
        whole = predicted_share(x[:1], y[:1])  # not a number where all rows are alike
    return np.concatenate([whole, np.where(corrected[1] > 0, share, np.nan)])


def predicted_share(x: Floats, y: Floats) -> Floats:
    """The share of rows' differences in y that a line through the other rows predicts, over the last axis."""
    left, about = _press(x, y)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(1 - left / about)


def _press(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Squares of what each y is from the line through the others (PRESS: Allen 1974), and from their mean."""
    n = x.shape[-1]
    dx, dy = x - x.mean(axis=-1, keepdims=True), y - y.mean(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = (dx * dx).sum(axis=-1, keepdims=True)
        slope = (dx * dy).sum(axis=-1, keepdims=True) / squares
        left, about = (dy - slope * dx) / (1 - 1 / n - dx * dx / squares), dy * n / (n - 1)
    return (left**2).sum(axis=-1), (about**2).sum(axis=-1)
