"""One cell against another: the effect that is shown, the link scale and the change, each with its own interval."""

from __future__ import annotations

from dataclasses import dataclass

from windowshift.core.contract.scale import Scale
from windowshift.core.contract.stats import Estimate, Floats, PairedMeans, estimate


@dataclass(frozen=True, slots=True)
class Effect:
    """A cell against another one, paired by prompt, in the three ways of `windowshift.core.contract.scale`.

    A way in which it is undefined is None (a ratio of what is 0); for differences all three are the same number.
    """

    effect: Estimate | None
    link: Estimate | None
    change: Estimate | None


def effect_of(scale: Scale, pair: PairedMeans) -> Effect:
    """Compare two cells on a scale; `n` counts the completions of the first one."""
    n = int(pair.n)
    return Effect(
        estimate(*shown_effect(scale, pair), n),
        estimate(*link_effect(scale, pair), n),
        estimate(*change(scale, pair), n),
    )


def shown_effect(scale: Scale, pair: PairedMeans) -> tuple[float, Floats]:
    """The effect as it is shown, and its resamples."""
    point = scale.effect(pair.mean, pair.n, pair.other, pair.other_n)
    return float(point), scale.effect(pair.samples, pair.n, pair.other_samples, pair.other_n)


def link_effect(scale: Scale, pair: PairedMeans) -> tuple[float, Floats]:
    """The effect on the link scale, and its resamples."""
    point = scale.linked(pair.mean, pair.n, pair.other, pair.other_n)
    return float(point), scale.linked(pair.samples, pair.n, pair.other_samples, pair.other_n)


def change(scale: Scale, pair: PairedMeans) -> tuple[float, Floats]:
    """The change, and its resamples."""
    point = scale.change(pair.mean, pair.other)
    return float(point), scale.change(pair.samples, pair.other_samples)


def against(scale: Scale, pair: PairedMeans) -> Estimate | None:
    """The first over the second, or minus it where means do not compare by ratio."""
    point = scale.against(pair.mean, pair.other)
    return estimate(float(point), scale.against(pair.samples, pair.other_samples), int(pair.n))
