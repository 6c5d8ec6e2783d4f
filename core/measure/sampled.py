"""A number with its draws, over all training runs and by run, until its interval is asked for.

Two sources of chance are told apart. **Prompts** (and phrases) are the draws: one joint set for the whole grid.
**Training runs** are the number itself by seed: their standard error over S seeds goes with Student's t of S - 1
degrees of freedom. All runs answer the same prompts, so a prompt that sets one row apart does so in every run, while
the chance of single completions is in the differences between runs already. Of the variance V over prompts of the
pooled number and the mean V1 of those by run, V - (V1 - V) / (S - 1) is what all runs have in common; the interval over
prompts is narrowed to that before both are put together. Runs that happen to be alike are no evidence that sampling is
exact: a variance between runs is estimated from few of them, and cannot be negative, so that an interval over runs is
never narrower than the one over prompts (Knapp & Hartung 2003 for few studies of a meta-analysis; Röver, Knapp & Friede
2015, doi:10.1186/s12874-015-0091-1). With one run it is over prompts alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from windowshift.core.contract.confidence import LEVEL, Z, student_t
from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.stats import RESAMPLES, Floats, intervals, sampled_means

_NORMAL = NormalDist()
_FURTHEST = 0.98
"""The share of draws on one side of a number beyond which a correction of its bias would be ruled by single draws."""


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """A number; or a reason why there is none, and no draws.

    Attributes:
        value: the number, all seeds pooled.
        draws: (resamples,), over prompts and phrases.
        n: what it rests on, as in `Estimate`.
        prompts: as in `Estimate`.
        trained: whether a training is behind it, whose noise one run cannot show.
        floor: what it lies above and multiplies over (0 for a ratio, -100 for a change in %): what runs differ by is
            then put together on the logarithm of what is above. None: it adds.
        leans: whether noise moves it one way (a spread, a slope of noisy points): the percentiles of its draws are then
            corrected for their bias (Efron 1987, BC without acceleration).
        ends: its interval over prompts where it is not that of the draws.
        runs: the same number of each training run, where there are several.
        reason: why it is missing.
    """

    value: float = math.nan
    draws: Floats | None = None
    n: int = 0
    prompts: int | None = None
    trained: bool = False
    floor: float | None = None
    leans: bool = False
    ends: tuple[float, float] | None = None
    runs: tuple[Sampled, ...] = ()
    reason: str = ""

    @property
    def there(self) -> bool:
        """Whether there is a number."""
        return self.draws is not None and math.isfinite(self.value)

    @property
    def estimate(self) -> Estimate | None:
        """The number with its interval; None where it is missing."""
        if self.draws is None or not math.isfinite(self.value):
            return None
        low, high = self.interval
        seeds = (len(self.runs) or 1) if self.trained else 0
        if not (math.isfinite(low) and math.isfinite(high)):
            return Estimate(float(self.value), None, None, self.n, self.prompts, seeds)
        return Estimate(float(self.value), low, high, self.n, self.prompts, seeds)

    @property
    def interval(self) -> tuple[float, float]:
        """The ends of the interval; NaN where more than half of the draws are undefined."""
        low, high = self._over_prompts()
        if self.runs and math.isfinite(low):
            known = np.array([self.value, low, high, *(run.value for run in self.runs)])
            floor = self.floor if self.floor is not None and (known > self.floor).all() else None
            value, low, high, *values = known if floor is None else np.log(known - floor)
            ends = over_runs(float(value), float(low), float(high), values, self._in_common(floor))
            low, high = (end if floor is None else floor + math.exp(end) for end in ends)
        return low, high

    def _over_prompts(self) -> tuple[float, float]:
        assert self.draws is not None
        if self.ends is not None:
            low, high = self.ends
        elif self.leans:
            low, high = bias_corrected(self.value, self.draws)
        else:
            ends = intervals(self.draws[:, None])
            low, high = float(ends[0][0]), float(ends[1][0])
        return min(low, self.value), max(high, self.value)  # NaN stays: it comes first

    @property
    def in_common(self) -> float:
        """The share of the reach over prompts that all runs have in common, of a number that adds."""
        return self._in_common(None)

    def _in_common(self, floor: float | None) -> float:
        """The share of the reach over prompts that all runs have in common."""
        assert self.draws is not None
        with np.errstate(divide="ignore", invalid="ignore"):
            whole, *each = (
                np.var(_finite(draws if floor is None else np.log(draws - floor)))
                for draws in (self.draws, *(run.draws for run in self.runs if run.draws is not None))
            )
        return float(in_common(float(whole), float(np.mean(each)), len(each)))

    # -- arithmetic -----------------------------------------------------------------------------

    def of(self, function: Callable[[Floats], Floats], floor: float | None = None) -> Sampled:
        """A function of it that rises, draw by draw."""
        if self.draws is None:
            return self
        ends = None
        if self.ends is not None:
            low, high = function(np.array(self.ends))
            ends = float(low), float(high)
        return replace(
            self,
            value=float(function(np.array([self.value]))[0]),
            draws=function(self.draws),
            ends=ends,
            floor=floor,
            runs=tuple(run.of(function, floor) for run in self.runs),
        )

    def widened(self, factor: float) -> Sampled:
        """The same number whose interval over prompts reaches so many times as far."""
        low, high = self._over_prompts()
        known = np.array([self.value, low, high])
        if self.floor is None or not (known > self.floor).all():
            value, low, high = (float(one) for one in known)
            return replace(self, ends=(value - factor * (value - low), value + factor * (high - value)))
        value, low, high = (float(one) for one in np.log(known - self.floor))
        ends = (math.exp(value - factor * (value - low)), math.exp(value + factor * (high - value)))
        return replace(self, ends=(self.floor + ends[0], self.floor + ends[1]))

    def minus(self, other: Sampled) -> Sampled:
        """The difference, draw by draw and run by run."""
        return combined((self, other), lambda both: both[0] - both[1])

    def over(self, other: Sampled) -> Sampled:
        """The quotient, draw by draw and run by run."""
        return combined((self, other), _quotient, floor=0.0)


def mean_of_runs(values: Floats, reason: str, resamples: int = RESAMPLES, *, trained: bool = True) -> Sampled:
    """The mean of single numbers over training runs and prompts, with that of each run.

    Args:
        values: (runs, prompts); NaN where there is none.
        reason: why it is missing where there is none at all.
        resamples: of the bootstrap over prompts.
        trained: whether the runs are trainings; else their numbers are those of one model, on other prompts.
    """
    there = np.isfinite(values)
    if not there.any():
        return Sampled(reason=reason)
    sums, counts = np.where(there, values, 0.0), there.astype(np.float64)
    means = sampled_means(
        Scale.difference(), np.vstack([sums.sum(0), *sums]), np.vstack([counts.sum(0), *counts]), resamples
    )
    whole, *each = (
        Sampled(
            float(means.values[row]),
            means.draws[:, row],
            int(means.n[row]),
            int(means.prompts[row]),
            trained,
            ends=(float(means.low[row]), float(means.high[row])),
        )
        for row in range(1 + len(values))
    )
    return replace(whole, runs=tuple(each)) if trained and len(each) > 1 and all(one.there for one in each) else whole


def combined(
    parts: Sequence[Sampled],
    function: Callable[[Floats], Floats],
    *,
    n: int | None = None,
    floor: float | None = None,
    leans: bool | None = None,
) -> Sampled:
    """A function of several numbers, draw by draw and run by run; the reason of the first one that is missing.

    Args:
        parts: the numbers.
        function: from (parts, any) to (any,).
        n: what it rests on; None: the least of the parts'.
        floor: as in `Sampled`.
        leans: as in `Sampled`; None: where one of the parts does.
    """
    missing = next((part for part in parts if not part.there), None)
    if missing is not None:
        return Sampled(reason=missing.reason or "it is undefined")
    seeds = {len(part.runs) for part in parts if part.runs}
    runs: tuple[Sampled, ...] = ()
    if len(seeds) == 1:
        # What no training is behind is the same for all runs.
        by_run = zip(*(part.runs or (part,) * next(iter(seeds)) for part in parts), strict=True)
        runs = tuple(combined(one, function) for one in by_run)
    prompts = [part.prompts for part in parts if part.prompts is not None]
    with np.errstate(invalid="ignore", divide="ignore"):
        value = function(np.array([[part.value] for part in parts]))
        draws = function(np.stack([part.draws for part in parts if part.draws is not None]))
    return Sampled(
        float(value[0]),
        draws,
        min(part.n for part in parts) if n is None else n,
        min(prompts, default=None),
        trained=any(part.trained for part in parts),
        floor=floor,
        leans=any(part.leans for part in parts) if leans is None else leans,
        runs=runs if all(run.there for run in runs) else (),
    )


def bias_corrected(value: float, draws: Floats) -> tuple[float, float]:
    """The percentiles of draws, corrected for how many of them lie on one side of the number."""
    known = _finite(draws)
    if len(known) <= len(draws) / 2:
        return math.nan, math.nan
    below = float((known < value).mean() + (known == value).mean() / 2)
    bias = _NORMAL.inv_cdf(min(max(below, 1 - _FURTHEST), _FURTHEST))
    low, high = np.percentile(known, [100 * _NORMAL.cdf(2 * bias - Z), 100 * _NORMAL.cdf(2 * bias + Z)])
    return float(low), float(high)


def in_common(whole: float, each: float, runs: int) -> float:
    """The share of a number's reach over prompts that all its runs have in common, from variances over prompts.

    Args:
        whole: of the pooled number.
        each: mean of those of single runs.
        runs: how many.
    """
    shared = whole - (each - whole) / (runs - 1)
    return math.sqrt(min(max(shared / whole, 0.0), 1.0)) if whole > 0 else 0.0


def over_runs(
    value: float, low: float, high: float, runs: Sequence[float], shared: float, level: float = LEVEL
) -> tuple[float, float]:
    """Widen an interval over prompts by the noise between training runs; it is never narrowed.

    Args:
        value: the number.
        low: the lower end over prompts.
        high: the upper one.
        runs: the number by run.
        shared: as `in_common` gives it.
        level: of the interval.
    """
    count, spread = len(runs), float(np.std(runs, ddof=1))
    error = spread / math.sqrt(count)
    below, above = (
        max(reach, _widened(shared * reach, error, count - 1, level)) for reach in (value - low, high - value)
    )
    return value - below, value + above


def _widened(reach: float, error: float, degrees: int, level: float) -> float:
    """A reach over prompts put together with a standard error of so many degrees of freedom.

    Adding the squares of both reaches is on the safe side where the runs are the smaller part, and Student's t of
    Satterthwaite's (1946) degrees of freedom on the other: half way between, the simulations of docs/validity.md hold.
    """
    if not error > 0:
        return reach
    apart = math.hypot(reach, student_t(degrees, level) * error)
    whole = math.hypot(reach / _NORMAL.inv_cdf((1 + level) / 2), error)
    return (apart + student_t(degrees * (whole / error) ** 4, level) * whole) / 2


def _finite(draws: Floats) -> Floats:
    return np.asarray(draws[np.isfinite(draws)])


def _quotient(both: Floats) -> Floats:
    return np.asarray(both[0] / both[1])
