"""Selection: train conditions ranked on the base model, and how well that ranking foretold what training did.

For an answer a of D's kind to a development prompt, let l(c) be its log-probability a token under the condition c, in
nats, and l() that without a push.

- **uplift** is the mean of l(c) - l(): how much likelier the prefix or dose makes D. Beside it stand the share of
  answers that it makes likelier, and the signal to noise: mean over standard deviation.
- **elicitation** is the effect of c on what the base model does, towards D.
- **left** is what the loss may still fall by under c, as a share of what it may fall by without a push: with g the
  condition D was written under, (l(g) - l(c)) / (l(g) - l()). Where little is left, a training under c learns little,
  whatever c says: it is marked, as the microscope marks it by the loss itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.stats import RESAMPLES, Floats, mean_summary, weight_blocks
from windowshift.core.measure.microscope import LITTLE

_STREAM = 11


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the base model says of one train condition, over `n` development prompts; None: it is not known.

    `elicitation` is on the behaviour's shown scale and counts towards D; `uplift` in nats a token.
    """

    name: str
    elicitation: Estimate | None
    uplift: Estimate | None
    above: Estimate | None
    signal: float | None
    left: Estimate | None

    @property
    def marked(self) -> bool:
        """Whether little is left to learn under it."""
        return self.left is not None and self.left.value < LITTLE


def read_candidate(name: str, elicitation: Estimate | None, c: Floats, plain: Floats, written: Floats) -> Candidate:
    """From log-probabilities a token, (answers,), one an answer and prompt; NaN: not read.

    Args:
        name: of the condition.
        elicitation: see `Candidate`.
        c: under the condition.
        plain: without a push.
        written: under the condition that D is written under.
    """
    there = np.isfinite(c) & np.isfinite(plain)
    gain = (c - plain)[there]
    if len(gain) < 2:
        return Candidate(name, elicitation, None, None, None, None)
    spread = float(gain.std(ddof=1))
    uplift = _mean(gain, Scale.difference())
    above = _mean((gain > 0).astype(float), Scale.rate())
    signal = float(gain.mean()) / spread if spread > 0 else None
    return Candidate(name, elicitation, uplift, above, signal, _left(c, plain, written))


def _left(c: Floats, plain: Floats, written: Floats) -> Estimate | None:
    there = np.isfinite(c) & np.isfinite(plain) & np.isfinite(written)
    if there.sum() < 2:
        return None
    top, bottom = (written - c)[there], (written - plain)[there]
    draws, bottoms = [], []
    for weights in weight_blocks(len(top), RESAMPLES, 0, _STREAM):
        with np.errstate(divide="ignore", invalid="ignore"):
            draws.append((weights @ top) / (weights @ bottom))
            bottoms.append(weights @ bottom)
    if np.percentile(np.concatenate(bottoms), 2.5) <= 0:
        return None  # D may be no likelier under its own condition: there is nothing to take a share of
    low, high = np.nanpercentile(np.concatenate(draws), [2.5, 97.5])
    return Estimate(float(top.mean() / bottom.mean()), float(low), float(high), len(top), len(top), 0)


def _mean(values: Floats, scale: Scale) -> Estimate | None:
    found = mean_summary([float(one) for one in values], range(len(values)), [False] * len(values), scale=scale)
    if found.mean is None:
        return None
    return Estimate(found.mean, found.low, found.high, found.n, found.n, 0)


def ranked(candidates: Sequence[Candidate], by: str) -> list[tuple[Candidate, float]]:
    """The candidates that have a score, with it, the best first."""
    scored = [(one, one.uplift if by == "uplift" else one.elicitation) for one in candidates]
    known = [(one, found.value) for one, found in scored if found is not None]
    return sorted(known, key=lambda pair: -pair[1])


def rank_correlation(scores: Mapping[str, float], effects: Mapping[str, Any], resamples: int) -> Estimate | None:
    """Spearman's rank correlation of a selection's scores with measured numbers, joint draws and all.

    The interval is of Fisher's z with the standard error of Bonett and Wright (2000), widened by what the draws of the
    measured numbers add: over other candidates, and over prompts. None below four candidates, where there is no such
    interval.

    Args:
        scores: by candidate.
        effects: numbers with `value` and `draws` (resamples,), by candidate.
        resamples: how many draws there are.
    """
    from scipy.stats import rankdata

    names = [name for name in scores if name in effects]
    if len(names) < 4:
        return None
    x = rankdata([scores[name] for name in names])
    table = np.column_stack(
        [[effects[name].value for name in names], np.stack([effects[name].draws for name in names])]
    )
    table = table[:, : resamples + 1]
    ranks = rankdata(table, axis=0)
    away = ranks - ranks.mean(axis=0)
    own = x - x.mean()
    spread = np.sqrt((own**2).sum() * (away**2).sum(axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(spread > 0, own @ away / spread, 0.0)
    value = float(found[0])
    z = np.arctanh(np.clip(found, -0.999999, 0.999999))
    error = float(np.sqrt((1 + value**2 / 2) / (len(names) - 3) + z[1:].var()))
    low, high = np.tanh([z[0] - 1.959964 * error, z[0] + 1.959964 * error])
    return Estimate(value, float(min(low, value)), float(max(high, value)), len(names), None, 0)
