"""Power before a run: which effect a grid of so many seeds and prompts can see, from variances of a pilot or shipped.

The number is the average uplift of a row against the base model, on the link scale. Its variance is that of prompts
over prompts and seeds, and that of training runs over seeds:

    se² = prompt² / (prompts · seeds) + run² / seeds.

An effect is seen when an interval leaves out 0 in 80 of 100 repetitions: (t + 0.84) · se, where t is Student's with the
degrees of freedom (Satterthwaite 1946) that the product's own interval has, and the normal quantile with one seed,
whose interval knows nothing of the runs though they vary all the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from windowshift.core.contract.confidence import Z, student_t
from windowshift.core.contract.records import BASE
from windowshift.core.measure.arm import ArmAxes
from windowshift.core.measure.grid import Grid
from windowshift.core.measure.resampled import Resampled
from windowshift.core.measure.row_measures import mean_uplift
from windowshift.core.measure.sampled import Sampled

SEEN = NormalDist().inv_cdf(0.8)
RUNS = (0.0, 0.05, 0.14)
"""Standard deviations between training runs of a row's average uplift, log2: none, low and high in the literature."""
DEMO = 0.464
"""That of one prompt in the shipped demo (log2, five to seven eval conditions): 0.13 at 100 prompts with one seed."""
MOST_SEEDS = 64


@dataclass(frozen=True, slots=True)
class Variances:
    """Standard deviations of a row's average uplift, on the link scale.

    Attributes:
        prompt: of one prompt; the average over n has this over √n.
        run: between training runs; None: the pilot has one seed, and cannot tell.
        rows: how many rows of the pilot they are from; 0: shipped ones.
        source: where they are from, for people.
        upper: what `run` lies below at 80 %: a few runs tell it badly, and a grid that is planned with the estimate
            alone is too small in half of all cases (Browne 1995, "On the use of a pilot sample for sample size
            determination"); None: `run` is.
        degrees: of freedom of `run`.
    """

    prompt: float
    run: float | None
    rows: int
    source: str
    upper: float | None = None
    degrees: int = 0


SHIPPED = Variances(DEMO, None, 0, "the shipped demo's variances (lengths on log2, a rehearsal model)")


@dataclass(frozen=True, slots=True)
class Power:
    """The least effect that is seen 80 times of 100 at a standard deviation between runs, and what more would see.

    `more` has (seeds, prompts, effect): one seed more, and twice the prompts.
    """

    run: float
    effect: float
    more: tuple[tuple[int, int, float], ...]


def standard_error(found: Variances, run: float, seeds: int, prompts: int) -> float:
    """Of a row's average uplift."""
    return math.sqrt((found.prompt**2 / prompts + run**2) / seeds)


def detectable(found: Variances, run: float, seeds: int, prompts: int) -> float:
    """The least effect that is seen in 80 of 100 repetitions."""
    error = standard_error(found, run, seeds, prompts)
    if seeds < 2 or not run:
        return (Z + SEEN) * error
    degrees = (seeds - 1) * (error / (run / math.sqrt(seeds))) ** 4
    return (student_t(degrees) + SEEN) * error


def seeds_for(found: Variances, run: float, effect: float, prompts: int) -> int | None:
    """The fewest seeds at which an effect is seen; None: more than 64."""
    return next((one for one in range(1, MOST_SEEDS + 1) if detectable(found, run, one, prompts) <= effect), None)


def power(found: Variances, seeds: int, prompts: int) -> tuple[Power, ...]:
    """For the pilot's noise between runs and its upper limit, or for none, low and high noise."""
    known = [one for one in (found.run, found.upper) if one is not None]
    runs = tuple(known) if known else RUNS
    more = ((seeds + 1, prompts), (seeds, 2 * prompts))
    return tuple(
        Power(
            run,
            detectable(found, run, seeds, prompts),
            tuple((*place, detectable(found, run, *place)) for place in more),
        )
        for run in runs
    )


def variances(grids: Iterable[tuple[str, Grid]], resamples: int = 400) -> Variances | None:
    """Those of finished rows of named experiments: medians of prompts' over rows, the mean square of runs'.

    Runs differ by the chance of their completions too, which the resamples know: what is between the runs in each of
    them. It is taken out, as in an analysis of variance, and every row weighs as its runs' degrees of freedom do.

    None where there is no finished row with two prompts.
    """
    prompt: list[float] = []
    run: list[tuple[float, int]] = []
    completions: list[float] = []
    names: dict[str, None] = {}
    for name, grid in grids:
        r = Resampled(grid, resamples)
        for arm in (ArmAxes(r, one) for one in r.arms):
            for generate, train in sorted(arm.rows):
                each = [mean_uplift(arm, generate, train, seed) for seed in arm.seeds]
                sound = [one for one in each if one.there and (one.prompts or 0) > 1]
                if train == BASE or not sound:
                    continue
                names[name] = None
                for one in sound:
                    assert one.draws is not None  # it is there
                    prompt.append(float(np.nanstd(one.draws)) * math.sqrt(one.prompts or 1))
                if len(sound) > 1:
                    run.append((float(np.var([one.value for one in sound], ddof=1)), len(sound) - 1))
                    completions.append(_of_completions(sound))
    if not prompt:
        return None
    degrees = sum(count for _, count in run)
    if not degrees:
        return Variances(float(np.median(prompt)), None, len(prompt), ", ".join(names))
    square = sum(square * count for square, count in run) / degrees
    chance = sum(one * count for one, (_, count) in zip(completions, run, strict=True)) / degrees
    between, upper = (
        math.sqrt(max(one - chance, 0.0)) for one in (square, square * degrees / _low_chi_square(degrees))
    )
    return Variances(float(np.median(prompt)), between, len(prompt), ", ".join(names), upper, degrees)


def _of_completions(runs: Sequence[Sampled]) -> float:
    """What runs of one row vary by, squared, for their own completions alone.

    The draws are joint: in each, what all runs have in common moves all of them alike, and what is left between them is
    of their own completions, whatever each run has scores of.
    """
    draws = np.stack([one.draws for one in runs if one.draws is not None])
    draws = draws[:, np.isfinite(draws).all(axis=0)]
    if draws.shape[1] < 2:
        return 0.0
    return float(np.var(draws - draws.mean(axis=1, keepdims=True), axis=0, ddof=1).mean())


def _low_chi_square(degrees: int) -> float:
    """The 20 % quantile of chi-square (from three degrees on Wilson and Hilferty 1931, within 1 %)."""
    if degrees < 3:
        return (0.0642, 0.4463)[degrees - 1]
    part = 2 / (9 * degrees)
    return float(degrees * (1 - part - SEEN * math.sqrt(part)) ** 3)
