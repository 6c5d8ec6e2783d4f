"""Iso-KL: the alpha at which the 95th percentile of a push's KL per token is so many nats.

KL(steered || base) is the sum over the vocabulary of p_steered (log p_steered - log p_base), of the next token, at
every token of completions that the base model wrote itself. All are pooled, so that a long completion counts for more.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.reading import KL_QUANTILE, KL_TOLERANCE
from windowshift.core.contract.stats import RESAMPLES, Floats, weight_blocks
from windowshift.core.measure.matching import OUT_OF_REACH, monotone

LADDER = 2.0
FLANKS = (0.8, 1.25)
"""Where it is measured on either side of the alpha found, as factors of it, for the interval."""
MOST_ROUNDS = 40
SMALLEST = 2.0**-20
_SLACK = 1e-9
_STREAM = 12


@dataclass(frozen=True, slots=True)
class KlPoint:
    """The 95th percentile of KL per token, in nats, under one alpha."""

    alpha: float
    kl: float


@dataclass(frozen=True, slots=True)
class IsoKl:
    """The alpha of a percentile of KL; None where it was not found, and `problem` says why.

    `alpha_low` and `alpha_high` are the 95 % interval, over prompts; None where that end lies beyond the alphas that
    were measured. `kl` is the percentile at `alpha`, with its interval; its n counts tokens. `points` are all alphas
    that were measured, by their size.
    """

    nats: float
    alpha: float | None
    alpha_low: float | None
    alpha_high: float | None
    kl: Estimate | None
    points: tuple[KlPoint, ...]
    prompts: int
    tokens: int
    problem: str | None = None


class IsoKlSearch:
    """A monotone search: up or down by factors of two until the target is enclosed, then on a line in logarithms.

    Ask `next`, measure there, and `add` what was measured, until `next` has nothing to ask.

    Args:
        nats: the target; its sign is the push's.
        start: the size of the first alpha.
        most: no alpha is larger.
    """

    def __init__(self, nats: float, start: float, most: float) -> None:
        self._nats, self._start, self._most = nats, start, most
        self._target, self._sign = abs(nats), math.copysign(1.0, nats)
        self._sizes: list[float] = []
        self._measured: dict[float, Sequence[Floats]] = {}
        self._tails: dict[float, float] = {}
        self._problem: str | None = None

    def next(self) -> float | None:
        """The next alpha to measure at; None: the search is over."""
        size = self._next()
        return None if size is None else self._sign * size

    def add(self, alpha: float, values: Sequence[Floats]) -> None:
        """Take the KL of every token under an alpha, in nats: one array a prompt, the same prompts every time."""
        size = abs(alpha)
        insort(self._sizes, size)
        self._measured[size] = values
        self._tails[size] = tail(values)

    def found(self, resamples: int = RESAMPLES, seed: int = 0) -> IsoKl:
        """What the search came to, once it is over."""
        points = tuple(KlPoint(self._sign * size, self._tails[size]) for size in self._sizes)
        some = next(iter(self._measured.values()), ())
        prompts, tokens = sum(len(one) > 0 for one in some), sum(map(len, some))
        size = self._solution()
        if size is None:
            return IsoKl(self._nats, None, None, None, None, points, prompts, tokens, self._problem)
        drawn = np.stack([resampled_tails(self._measured[one], resamples, seed) for one in self._sizes], axis=1)
        at = np.log(self._sizes)
        with np.errstate(divide="ignore"):
            curves = np.log(drawn)
        solved = np.exp([_where(at, monotone(row, rising=True), math.log(self._target)) for row in curves])
        tails_out = _expanded(prompts)
        ends = [self._end(solved, share) for share in (tails_out, 1 - tails_out)]
        if self._sign < 0:
            ends = [None if end is None else -end for end in reversed(ends)]
        own = drawn[:, self._sizes.index(size)]
        value, (low, high) = self._tails[size], np.nanpercentile(own, [100 * tails_out, 100 * (1 - tails_out)])
        reached = Estimate(value, min(float(low), value), max(float(high), value), tokens, prompts)
        return IsoKl(self._nats, self._sign * size, ends[0], ends[1], reached, points, prompts, tokens)

    def _end(self, solved: Floats, share: float) -> float | None:
        edge = self._sizes[0 if share < 0.5 else -1]
        if float(np.isclose(solved, edge, rtol=1e-12).mean()) > OUT_OF_REACH:
            return None
        return float(np.percentile(solved, 100 * share))

    def _solution(self) -> float | None:
        """The size that is nearest to the target, within the tolerance."""
        close = [one for one in self._sizes if abs(self._tails[one] / self._target - 1) <= KL_TOLERANCE]
        return min(close, key=lambda one: abs(self._tails[one] - self._target), default=None)

    def _next(self) -> float | None:
        if not self._sizes:
            return self._start
        solution = self._solution()
        if solution is not None:
            flanks = (solution * factor for factor in FLANKS)
            return next((one for one in flanks if one not in self._measured), None)
        if len(self._sizes) >= MOST_ROUNDS:
            self._problem = f"the search did not settle in {MOST_ROUNDS} steps: KL jumps with alpha"
            return None
        first = next((n for n, one in enumerate(self._sizes) if not self._tails[one] < self._target), None)
        if first is None:
            largest = self._sizes[-1]
            if largest >= self._most:
                self._problem = (
                    f"out of reach: at alpha {self._sign * largest:.4g} the 95th percentile of KL is "
                    f"{self._tails[largest]:.3g} nats, below {self._target:g}"
                )
                return None
            return min(largest * LADDER, self._most)
        if first == 0:
            smallest = self._sizes[0]
            if smallest <= self._start * SMALLEST:
                self._problem = (
                    f"out of reach: at alpha {self._sign * smallest:.4g} the 95th percentile of KL is "
                    f"{self._tails[smallest]:.3g} nats already, above {self._target:g}"
                )
                return None
            return smallest / LADDER
        return self._between(self._sizes[first - 1], self._sizes[first])

    def _between(self, low: float, high: float) -> float:
        """On the line through both in logarithms, never near an end: KL grows by the square of a small alpha."""
        share, (below, above) = 0.5, (self._tails[low], self._tails[high])
        if below > 0 and math.isfinite(above) and len(self._sizes) % 4:  # each fourth step halves the bracket
            share = math.log(self._target / below) / math.log(above / below)
        return float(low * (high / low) ** min(max(share, 0.05), 0.95))


def _expanded(prompts: int) -> float:
    """The share of resamples beyond either end of an interval: below 2.5 % where prompts are few (Hesterberg 2015)."""
    from scipy.stats import norm, t

    return float(norm.cdf(-math.sqrt(prompts / (prompts - 1)) * t.ppf(0.975, prompts - 1))) if prompts > 1 else 0.025


def tail(values: Sequence[Floats]) -> float:
    """The 95th percentile of all tokens: the smallest KL that at least 95 of 100 do not exceed."""
    pooled = np.sort(np.concatenate(values))
    return float(pooled[max(0, math.ceil(KL_QUANTILE * len(pooled) - _SLACK) - 1)])


def resampled_tails(values: Sequence[Floats], resamples: int, seed: int) -> Floats:
    """The percentile under each resample of prompts, (resamples,); NaN where a resample has none of them."""
    pooled = np.concatenate(values)
    prompt = np.repeat(np.arange(len(values)), [len(one) for one in values])
    order = np.argsort(-pooled, kind="stable")
    pooled, prompt = pooled[order], prompt[order]
    counts = np.bincount(prompt, minlength=len(values)).astype(float)
    found: list[Floats] = []
    rows = max(1, 4_000_000 // max(1, len(pooled)))
    for block in weight_blocks(len(values), resamples, seed, _STREAM):
        for start in range(0, len(block), rows):
            weights = block[start : start + rows]
            beyond = (1 - KL_QUANTILE) * (weights @ counts) + _SLACK
            over = np.cumsum(weights[:, prompt], axis=1) > beyond[:, None]
            found.append(np.where(over.any(axis=1), pooled[over.argmax(axis=1)], np.nan))
    return np.concatenate(found)


def kl_at(points: Sequence[KlPoint], alpha: float) -> float | None:
    """The percentile at an alpha, on straight lines in logarithms between those measured; None beyond them."""
    own = [(abs(one.alpha), one.kl) for one in points if one.alpha * alpha > 0 and one.kl > 0]
    for (low, below), (high, above) in pairwise(own):
        if low <= abs(alpha) <= high and math.isfinite(above):
            share = math.log(abs(alpha) / low) / math.log(high / low)
            return float(below * (above / below) ** share)
    return None


def _where(at: Floats, curve: Floats, target: float) -> float:
    """Where a rising curve has a value: on straight lines, at its end where it has it nowhere."""
    if not target > curve[0]:
        return float(at[0])
    if target > curve[-1]:
        return float(at[-1])
    k = int(np.searchsorted(curve, target))
    low, high = curve[k - 1], curve[k]
    share = (target - low) / (high - low) if math.isfinite(low) else 1.0
    return float(at[k - 1] + share * (at[k] - at[k - 1]))
