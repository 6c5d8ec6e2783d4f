"""Means that a token limit does not bend: restricted means of a grid, by the Kaplan-Meier estimate.

A completion that was cut off would have gone on: its score is only a lower bound, and the plain mean of such scores
lies too low. The Kaplan-Meier estimate (1958) of the share of completions longer than t takes what was cut off as
censored there; the area under it up to a limit is the restricted mean, that of min(length, limit). It supposes that
what was cut off at some length would have gone on like what was not, of that length.

Each completion has a pseudo-observation of it (Andersen, Klein and Rosthoj 2003, by the infinitesimal jackknife): their
mean is the restricted mean and their spread by prompt its chance, so that they go through the same analysis as scores
do. Where nothing is cut off they are the scores themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from windowshift.core.contract.records import Summary
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.stats import Floats, mean_summary
from windowshift.core.measure.grid import Grid, Lengths


@dataclass(frozen=True, slots=True, eq=False)
class RestrictedGrid:
    """A grid whose scores are pseudo-observations of the restricted mean up to `limit`."""

    grid: Grid
    limit: float


def restricted(grid: Grid) -> RestrictedGrid | None:
    """The grid in restricted means, up to the same limit for all of its cells; None where no done cell was cut off."""
    done = [cell.state == "done" for cell in grid.cells] + [ended for _, ended in grid.references]
    rows = [number for number, (own, ended) in enumerate(zip(grid.lengths, done, strict=False)) if ended and own.n]
    if not any(grid.lengths[row].cut.any() for row in rows):
        return None
    limit = common_limit(grid.lengths[row] for row in rows)
    sums = grid.sums.copy()
    for row in rows:
        own = grid.lengths[row]
        sums[row] = np.bincount(own.places, weights=pseudo_observations(own, limit), minlength=sums.shape[1])
    return RestrictedGrid(replace(grid, sums=sums), limit)


def restricted_means(
    scale: Scale, several: Sequence[tuple[Sequence[int], Sequence[float | None], Sequence[str]]]
) -> tuple[float, list[Summary]] | None:
    """The limit and the restricted means of a few cells, of their prompts, scores and ends; None where nothing is cut.

    Raises:
        ValueError: a sequence is longer than its neighbours.
    """
    cells = []
    for prompts, scores, ends in several:
        rows = zip(prompts, scores, ends, strict=True)
        known = [(prompt, value, end == "length") for prompt, value, end in rows if value is not None]
        own = list(zip(*known, strict=True)) or [(), (), ()]
        cells.append(Lengths(np.array(own[0], np.intp), np.array(own[1], np.float64), np.array(own[2], np.bool_)))
    if scale.truncation != "lower_bound" or not any(own.cut.any() for own in cells) or not all(own.n for own in cells):
        return None
    limit = common_limit(cells)
    return limit, [mean_summary(pseudo_observations(own, limit), own.places, own.cut, scale=scale) for own in cells]


def common_limit(several: Iterable[Lengths]) -> float:
    """How far the estimates of all of them are known: to the least of the largest scores that were cut off."""
    return min((_reach(own) for own in several), default=math.inf)


def _reach(own: Lengths) -> float:
    """How far a cell's estimate is known: for ever where its largest score is whole."""
    most = float(own.values.max())
    return most if own.cut[own.values == most].any() else math.inf


@dataclass(frozen=True, slots=True, eq=False)
class Survival:
    """The Kaplan-Meier estimate: after each of the `times`, in ascending order, the `share` that is still longer.

    `at_risk` counts those that reach a time, `ended` those of them that end there; what is cut off there reaches it.
    """

    times: Floats
    share: Floats
    at_risk: NDArray[np.int64]
    ended: NDArray[np.int64]


def survival(own: Lengths) -> Survival:
    """The estimate of a cell.

    By hand, as `scipy.stats.ecdf` of right-censored data: that costs a screen 73 MB and nearly two seconds.
    """
    times, which = np.unique(own.values, return_inverse=True)
    ended = np.bincount(which[~own.cut], minlength=len(times))
    at_risk = np.bincount(which, minlength=len(times))[::-1].cumsum()[::-1]
    return Survival(times, np.cumprod(1 - ended / at_risk), at_risk, ended)


def pseudo_observations(own: Lengths, limit: float) -> Floats:
    """What each completion says of the restricted mean, (n,); their mean is it."""
    found = survival(own)
    times = np.minimum(found.times, limit)
    widths = np.append(np.diff(times), 0.0)  # beyond the last one lies nothing, or nothing that is known
    areas = (found.share * widths)[::-1].cumsum()[::-1]  # under the curve, from each time on
    mean = times[0] + areas[0]
    left = found.at_risk - found.ended
    # A completion that goes on beyond a time lifts the share there; one that ends there lowers it.
    lifts = np.divide(areas * found.ended, found.at_risk * left, out=np.zeros(len(times)), where=left > 0).cumsum()
    which = np.searchsorted(found.times, own.values)
    before = np.concatenate([[0.0], lifts])
    ends = before[which] - (areas / found.at_risk)[which]
    return np.asarray(mean + own.n * np.where(own.cut, lifts[which], ends))
