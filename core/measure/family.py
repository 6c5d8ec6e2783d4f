"""Many cells at once: how far all uplifts of a table may be off together, and which hold when so many are read.

The cells of one arm and generation condition are a **family**: they stand in one table, and a reader picks from it.

- **Simultaneous bands** (max-T: Westfall and Young 1993; for bootstraps Romano and Wolf 2005): the joint draws say how
  far the farthest cell of a draw is off, in reaches of its own interval; as many reaches hold all cells at once in 95 %
  of draws. The cells' dependence, which makes them fewer than they look, is in the draws. So far out the draws of
  skewed scores are too near, because a resample whose mean is off has another spread too: with one training run the
  farthest cell of a draw is measured in standard errors of that draw too (the studentised bootstrap). That holds more
  often than it should, and the plain one less often: the bands end half way between, which simulations hold.
- The **p value** of a cell is the level at which its interval would touch no effect, by the normal distribution over
  prompts and Student's t over training runs: the intervals and the p values never disagree.
- **Holm** (1979) keeps the chance of any false claim in the family at 5 %; **Benjamini and Hochberg** (1995) the
  expected share of false ones among those that are claimed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from windowshift.core.contract.confidence import LEVEL, Z
from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.stats import Floats, intervals, weight_blocks
from windowshift.core.measure.resampled import Key, Resampled
from windowshift.core.measure.sampled import Sampled, in_common, over_runs

_NORMAL = NormalDist()
ALPHA = 1 - LEVEL
_CHUNK = 256  # cells that are worked on at once
_SMALLEST = 1e-15
"""Below it a p value is as good as 0: beyond, neither the draws nor the quantiles say anything."""


@dataclass(frozen=True, slots=True)
class Claim:
    """That a cell differs from the base model, beside the same claim of all other cells of its table.

    Attributes:
        key: the cell, all seeds pooled.
        uplift: against the base model on the link scale, with the end of the simultaneous bands as its interval.
        p: two-sided, of its own interval.
        holm: p adjusted by Holm: at most 0.05 where no false claim is to be among all.
        bh: p adjusted by Benjamini and Hochberg: at most 0.05 where 5 % of the claims may be false.
    """

    key: Key
    uplift: Estimate
    p: float
    holm: float
    bh: float

    @property
    def mark(self) -> str:
        """What stands behind the cell's number, as `MARKS` explains."""
        return "*h" if self.holm <= ALPHA else "*b" if self.bh <= ALPHA else "*" if self.p <= ALPHA else ""


MARKS = (
    "* its own 95% interval leaves out 0; *b also when 5% of the table's claims may be false (Benjamini-Hochberg); "
    "*h also when none may (Holm)"
)


def claims(r: Resampled, columns: dict[Key, int]) -> tuple[Claim, ...]:
    """The cells of one table, each beside the others.

    Args:
        r: the grid.
        columns: its cells; those without an interval are in no family.
    """
    uplift = r.uplifts
    chosen = {
        key: column
        for key, column in columns.items()
        if np.isfinite([uplift.values[column], uplift.low[column], uplift.high[column]]).all()
    }
    if not chosen:
        return ()
    order = list(chosen.values())
    level = joint_level(uplift.values[order], uplift.draws[:, order])
    away = studentised(r, order)
    reaches = [Reach.of(r, column) for column in order]
    p = [reach.p for reach in reaches]
    found = []
    adjusted = zip(chosen, reaches, away, p, holm(p), benjamini_hochberg(p), strict=True)
    for key, reach, wide, own, strict, lenient in adjusted:
        column, seeds = chosen[key], len(r.members[chosen[key]])
        low, high = reach.ends(level)
        if wide > 0:
            low = min((low + reach.value - wide) / 2, reach.low)
            high = max((high + reach.value + wide) / 2, reach.high)
        estimate = Estimate(
            reach.value, min(low, reach.value), max(high, reach.value),
            int(r.paired.n[column]), int(r.paired.prompts[column]), seeds,
        )  # fmt: skip
        found.append(Claim(key, estimate, own, strict, lenient))
    return tuple(found)


def studentised(r: Resampled, columns: Sequence[int], level: float = LEVEL) -> Floats:
    """How far each of some uplifts reaches so that all hold at once: one number of standard errors for all of them.

    As many as the farthest one is off in `level` of resamples, by the standard errors of each resample (cells,). 0 for
    rates, whose spread may be 0, for pooled training runs, whose reach is over runs too, and for a cell alone.
    """
    if len(columns) < 2 or r.scale.kind == "rate" or any(r.runs.get(column) for column in columns):
        return np.zeros(len(columns))
    farthest = np.zeros(r.samples.shape[0])
    spreads: list[Floats] = []
    for start in range(0, len(columns), _CHUNK):
        some = np.asarray(columns[start : start + _CHUNK], dtype=np.intp)
        both = (r.counts[some] > 0) & (r.counts[r.bases[some]] > 0)
        tables = [np.where(both, table[rows], 0.0) for rows in (some, r.bases[some]) for table in (r.sums, r.counts)]
        values, errors = _uplift_errors(r, np.ones((1, r.sums.shape[1])), tables)
        at = 0
        for weights in weight_blocks(r.sums.shape[1], len(farthest), r.seed):
            drawn, own = _uplift_errors(r, weights, tables)
            with np.errstate(divide="ignore", invalid="ignore"):
                away = np.abs(drawn - values) / own
            away[~np.isfinite(away)] = 0.0  # a resample of a prompt or two has no spread to speak of
            block = farthest[at : at + len(weights)]
            np.maximum(block, away.max(axis=1), out=block)
            at += len(weights)
        spreads.append(errors[0])
    return np.nan_to_num(np.percentile(farthest, 100 * level) * np.concatenate(spreads))


def _uplift_errors(r: Resampled, weights: Floats, tables: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Uplifts on the link scale under some weights (draws, prompts), and their standard errors, by linearisation.

    `tables` are sums and counts of the cells, and those of their base cells, (cells, prompts) each.
    """
    own, n, base, base_n = tables
    total, base_total = weights @ n.T, weights @ base_n.T
    with np.errstate(divide="ignore", invalid="ignore"):
        mean, base_mean = weights @ own.T / total, weights @ base.T / base_total
        left = weights @ (own * own).T - 2 * mean * (weights @ (own * n).T) + mean**2 * (weights @ (n * n).T)
        right = weights @ (base * base).T - 2 * base_mean * (weights @ (base * base_n).T)
        right += base_mean**2 * (weights @ (base_n * base_n).T)
        cross = weights @ (own * base).T - base_mean * (weights @ (own * base_n).T) - mean * (weights @ (n * base).T)
        cross += mean * base_mean * (weights @ (n * base_n).T)
        if r.scale.kind == "difference":
            slope, base_slope, values = 1 / total, 1 / base_total, mean - base_mean
        else:
            slope, base_slope = 1 / (total * mean * math.log(2)), 1 / (base_total * base_mean * math.log(2))
            values = np.log2(mean / base_mean)
        variance = slope**2 * left - 2 * slope * base_slope * cross + base_slope**2 * right
    return values, np.sqrt(np.maximum(variance, 0.0))


def joint_level(values: Floats, draws: Floats, level: float = LEVEL) -> float:
    """The level of single intervals at which all of them hold together at `level`, from joint draws (draws, cells)."""
    low, high = intervals(draws)
    away = draws - values
    with np.errstate(divide="ignore", invalid="ignore"):
        reaches = np.where(away < 0, away / (low - values), away / (high - values))
    reaches[~np.isfinite(reaches)] = 0.0  # a cell without spread is never off
    farthest = float(np.percentile(reaches.max(axis=1), 100 * level)) if len(reaches) else 1.0
    return max(2 * _NORMAL.cdf(Z * max(farthest, 1.0)) - 1, level)


def holm(p: Sequence[float]) -> list[float]:
    """P values adjusted by Holm (1979), in their order."""
    order = sorted(range(len(p)), key=p.__getitem__)
    found, largest = [0.0] * len(p), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min((len(p) - rank) * p[index], 1.0))
        found[index] = largest
    return found


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """P values adjusted by Benjamini and Hochberg (1995), in their order."""
    order = sorted(range(len(p)), key=p.__getitem__, reverse=True)
    found, least = [0.0] * len(p), 1.0
    for rank, index in enumerate(order):
        least = min(least, len(p) / (len(p) - rank) * p[index])
        found[index] = least
    return found


@dataclass(frozen=True, slots=True)
class Reach:
    """A number with its interval over prompts at 95 %, and what its training runs add: its interval at any level.

    Attributes:
        value: the number.
        low: the lower end over prompts.
        high: the upper one.
        runs: the number by run, where there are several.
        shared: the share of its reach over prompts that all runs have in common.
    """

    value: float
    low: float
    high: float
    runs: tuple[float, ...]
    shared: float

    @classmethod
    def of_number(cls, number: Sampled) -> Reach:
        """That of a number that adds: one with an interval."""
        low, high = replace(number, runs=()).interval
        runs = tuple(run.value for run in number.runs)
        return cls(number.value, low, high, runs, number.in_common if runs else 1.0)

    @classmethod
    def of(cls, r: Resampled, column: int) -> Reach:
        """That of one column's uplift."""
        uplift, runs = r.uplifts, list(r.runs.get(column, ()))
        ends = float(uplift.values[column]), float(uplift.low[column]), float(uplift.high[column])
        if len(runs) < 2 or not np.isfinite(uplift.values[runs]).all():
            return cls(*ends, (), 1.0)
        with np.errstate(invalid="ignore"):
            spread = np.nanvar(uplift.draws[:, [column, *runs]], axis=0)
        shared = in_common(float(spread[0]), float(spread[1:].mean()), len(runs))
        return cls(*ends, tuple(float(one) for one in uplift.values[runs]), shared)

    def ends(self, level: float) -> tuple[float, float]:
        """The interval at a level."""
        wider = _NORMAL.inv_cdf((1 + level) / 2) / Z
        low, high = self.value - wider * (self.value - self.low), self.value + wider * (self.high - self.value)
        return over_runs(self.value, low, high, self.runs, self.shared, level) if self.runs else (low, high)

    def within(self, margin: float) -> float:
        """The p value of two one-sided tests (Schuirmann 1987) that the number lies within a margin of 0.

        It is the a at which the interval of level 1 - 2a touches the margin.
        """
        if abs(self.value) >= margin:
            return 1.0
        smallest, largest = math.log(_SMALLEST), math.log(0.5)  # of log p: the interval of p = 1/2 is a point
        for _ in range(50):
            middle = (smallest + largest) / 2
            low, high = self.ends(1 - 2 * math.exp(middle))
            if -margin < low and high < margin:
                largest = middle
            else:
                smallest = middle
        return math.exp(largest)

    @property
    def p(self) -> float:
        """Where the interval touches 0."""
        if self.value == 0:
            return 1.0
        if not self.runs:
            reach = self.value - self.low if self.value > 0 else self.high - self.value
            return 2 * _NORMAL.cdf(-Z * abs(self.value) / reach) if reach > 0 else 0.0
        smallest, largest = math.log(_SMALLEST), 0.0  # of log p: the interval of p = 1 is a point
        for _ in range(50):
            middle = (smallest + largest) / 2
            low, high = self.ends(1 - math.exp(middle))
            if low <= 0 <= high:
                smallest = middle
            else:
                largest = middle
        return math.exp(largest)
