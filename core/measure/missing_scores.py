"""Where the scores of compared cells are missing unequally, and how far the missing ones can move what is compared.

A comparison is over the prompts that both have a score of. That is fair as long as scores are missing by chance; where
one side lacks more of them than the other, what is missing may be what differs. Whether it does is a paired comparison
of the shares that have a score, by the same intervals as any other difference of rates. What it can do to a difference
of rates is bounded without supposing anything (Manski 1990): every missing score may be 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.stats import Floats, PairedMeans, estimated
from windowshift.core.measure.resampled import Resampled


@dataclass(frozen=True, slots=True)
class WorstCase:
    """The least and the greatest that a difference of rates can be, whatever the missing scores are.

    `interval` goes from the lower end of the least to the upper end of the greatest: with 95 %, over prompts, it holds
    the difference of what was asked.
    """

    least: float
    greatest: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class MissingScores:
    """How many of so many completions have a score on both sides of a comparison, of the prompts that both were asked.

    `difference` is the first share minus the second, paired by prompt; `worst` is there for rates.
    """

    scored: tuple[int, int]
    asked: tuple[int, int]
    difference: Estimate
    worst: WorstCase | None

    @property
    def differs(self) -> bool:
        """Whether the shares differ by more than chance: their difference's interval leaves out 0."""
        return self.difference.decided


def missing_between(r: Resampled, own: Sequence[int], other: Sequence[int]) -> MissingScores | None:
    """What is missing in some columns against as many others, one eval condition after the other.

    None where nothing is missing, where it is not known how many completions there are, or where no prompt was asked in
    both.
    """
    if r.asked is None or not own or len(own) != len(other):
        return None
    columns = (list(own), list(other))
    both = (r.asked[columns[0]] > 0) & (r.asked[columns[1]] > 0)
    asked, scored, sums = (
        [np.where(both, table[one], 0.0).sum(axis=0) for one in columns] for table in (r.asked, r.counts, r.sums)
    )
    totals = tuple(int(one.sum()) for one in asked), tuple(int(one.sum()) for one in scored)
    if not all(totals[0]) or totals[0] == totals[1]:
        return None
    difference = _difference(scored, asked)
    if difference is None:
        return None
    worst = None
    if r.scale.kind == "rate":
        missing = [one - there for one, there in zip(asked, scored, strict=True)]
        least = _difference([sums[0], sums[1] + missing[1]], asked)
        greatest = _difference([sums[0] + missing[0], sums[1]], asked)
        if least is not None and greatest is not None:
            ends = least.low, greatest.high
            interval = None if ends[0] is None or ends[1] is None else (ends[0], ends[1])
            worst = WorstCase(least.value, greatest.value, interval)
    return MissingScores((totals[1][0], totals[1][1]), (totals[0][0], totals[0][1]), difference, worst)


def _difference(sums: Sequence[Floats], counts: Sequence[Floats]) -> Estimate | None:
    """The first rate minus the second, paired by prompt."""
    pair = PairedMeans(np.stack(sums), np.stack(counts))
    value = pair.mean - pair.other
    low, high = pair.rate_ends(None) if pair.prompts >= 2 else (math.nan, math.nan)
    return estimated(value, low, high, int(pair.n), pair.prompts)
