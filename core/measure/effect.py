"""One cell against another: the effect that is shown, the link scale and the change, each with its own interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.stats import Floats, PairedMeans
from windowshift.core.measure.sampled import Sampled


@dataclass(frozen=True, slots=True)
class Effect:
    """A cell against another one, paired by prompt, in the three ways of `windowshift.core.contract.scale`.

    A way in which it is undefined is None (a ratio of what is 0); for differences all three are the same number.
    """

    effect: Estimate | None
    link: Estimate | None
    change: Estimate | None


def effect_of(scale: Scale, pair: PairedMeans, *, trained: bool = False) -> Effect:
    """Compare two cells on a scale; `n` counts the completions of the first one."""
    link = linked(scale, pair, trained=trained)
    shown = shown_effect(scale, pair, trained=trained)
    return Effect(shown.estimate, link.estimate, change(scale, pair, trained=trained).estimate)


def linked(scale: Scale, pair: PairedMeans, *, trained: bool = False) -> Sampled:
    """The first against the second on the link scale."""
    both = pair.on(scale)
    value = scale.linked(pair.mean, pair.n, pair.other, pair.other_n)
    draws = scale.linked(both.draws[:, 0], np.inf, both.draws[:, 1], np.inf)
    ends = pair.rate_ends(scale) if scale.kind == "rate" else None
    return Sampled(float(value), draws, int(pair.n), pair.prompts, trained, ends=ends)


def shown_effect(scale: Scale, pair: PairedMeans, *, trained: bool = False) -> Sampled:
    """The first against the second as it is shown."""
    if scale.kind != "rate":
        return linked(scale, pair, trained=trained)
    draws = pair.on(scale).draws
    value = pair.mean - pair.other
    ends = pair.rate_ends(None)
    return Sampled(value, draws[:, 0] - draws[:, 1], int(pair.n), pair.prompts, trained, ends=ends)


def change(scale: Scale, pair: PairedMeans, *, trained: bool = False) -> Sampled:
    """The change from the second to the first: in %, else the effect."""
    if scale.kind != "ratio":
        return shown_effect(scale, pair, trained=trained)
    return linked(scale, pair, trained=trained).of(_percent, floor=-100.0)


def against(scale: Scale, pair: PairedMeans) -> Sampled:
    """The first over the second, or minus it where means do not compare by ratio."""
    if scale.kind != "ratio":
        return shown_effect(scale, pair)
    return linked(scale, pair).of(np.exp2, floor=0.0)


def _percent(values: Floats) -> Floats:
    return np.asarray(100 * (np.exp2(values) - 1))
