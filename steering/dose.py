"""Calibration: which layer to push at, and which alpha shows a wanted mean. Pure functions of measured numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from windowshift.core.errors import SpecError

Scale = Literal["ratio", "difference"]
Measured = tuple[float, float, float]
"""Mean of the behaviour, and the ends of its 95 % interval."""


@dataclass(frozen=True, slots=True)
class DosePoint:
    """The base model under one alpha: mean of the behaviour with its interval, and how sound the text is.

    `coherence` is the mean log-probability a token of the completions under the unsteered model, in nats;
    `repetition` the mean of `repetition` over completions. None where it was not measured.
    """

    alpha: float
    mean: float
    low: float
    high: float
    coherence: float | None = None
    repetition: float | None = None


@dataclass(frozen=True, slots=True)
class LayerRange:
    """What one layer can do: the alphas that stay sound and monotone, and how far the mean moves over them."""

    layer: int
    alpha_low: float
    alpha_high: float
    range: float
    rising: bool
    points: int
    why: str


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """The layer picked, and every layer's range, so that the pick can be looked at."""

    layer: int
    ranges: tuple[LayerRange, ...]
    rule: str


@dataclass(frozen=True, slots=True)
class Match:
    """The alpha at which the mean is the target.

    `alpha_low` and `alpha_high` are where the interval's ends cross the target; None where they do not
    within what was measured. Where `reached` is False the target is out of reach, and the alpha is the
    nearest one measured.
    """

    alpha: float
    mean: float
    low: float
    high: float
    target: float
    reached: bool
    alpha_low: float | None
    alpha_high: float | None
    measured: tuple[DosePoint, ...]


def repetition(text: str, words: int = 4) -> float:
    """Share of a text's runs of `words` words that repeat an earlier one: 0 for none, near 1 for a loop."""
    parts = text.split()
    runs = Counter(tuple(parts[at : at + words]) for at in range(len(parts) - words + 1))
    total = sum(runs.values())
    return 1 - len(runs) / total if total else 0.0


def pick_layer(
    curves: dict[int, Sequence[DosePoint]],
    *,
    scale: Scale = "ratio",
    coherence_margin: float = 0.5,
    repetition_margin: float = 0.2,
) -> LayerChoice:
    """Pick the layer whose dose-response is monotone over the largest range of the mean, while text stays sound.

    From alpha 0, each curve is followed both ways until coherence falls by more than `coherence_margin` nats
    a token below what it is at alpha 0, or repetition rises by more than `repetition_margin` above it, or the
    mean turns back: a step against the direction of the curve whose two intervals do not overlap. The range
    is the log ratio, or the difference, of the means at both ends. The lower layer wins a tie.

    Raises:
        SpecError: there are no curves, one lacks alpha 0, or none moves the mean.
    """
    if not curves:
        raise SpecError("no dose curves were measured, so no layer can be picked")
    ranges = tuple(
        _layer_range(layer, curves[layer], scale, coherence_margin, repetition_margin) for layer in sorted(curves)
    )
    best = max(ranges, key=lambda one: (one.range, -one.layer))
    if best.range <= 0:
        raise SpecError("no layer moves the behaviour while the text stays sound: use another vector, or more alphas")
    rule = (
        f"largest {scale} of means over alphas around 0 that keep the curve monotone, coherence within "
        f"{coherence_margin:g} nats a token and repetition within {repetition_margin:g} of the unsteered model"
    )
    return LayerChoice(best.layer, ranges, rule)


def match_alpha(
    measure: Callable[[float], Measured],
    target: float,
    *,
    limits: tuple[float, float],
    start: float = 0.0,
    step: float | None = None,
    tolerance: float = 0.02,
    calls: int = 16,
    known: Sequence[DosePoint] = (),
) -> Match:
    """Find the alpha whose mean is the target: bracket by doubling steps, then bisect.

    Args:
        measure: mean and interval at an alpha; the same seeds at each alpha make it smooth.
        target: the mean that is wanted.
        limits: the alphas that may be tried, for instance a `LayerRange`'s.
        start: where to begin, within the limits.
        step: the first step; an eighth of the limits' width by default.
        tolerance: relative error of the mean that is good enough.
        calls: measurements at most.
        known: points measured already, which are not measured again.

    Raises:
        SpecError: the limits or the target make no sense.
    """
    lower, upper = limits
    if not lower < upper or not lower <= start <= upper or not math.isfinite(target):
        raise SpecError(f"cannot match {target:g} between alpha {lower:g} and {upper:g} from {start:g}")
    found = {point.alpha: point for point in known if lower <= point.alpha <= upper}
    left = calls

    def at(alpha: float) -> DosePoint:
        nonlocal left
        if alpha not in found:
            left -= 1
            found[alpha] = DosePoint(alpha, *measure(alpha))
        return found[alpha]

    def good(point: DosePoint) -> bool:
        return abs(point.mean - target) <= tolerance * abs(target)

    at(start)
    stride = first_stride = step or (upper - lower) / 8
    down = up = start
    while left > 0 and not any(map(good, found.values())) and _bracket(found.values(), target) is None:
        if down <= lower and up >= upper:
            break
        for edge in (max(lower, down - stride), min(upper, up + stride)):
            if left > 0:
                at(edge)
        down, up, stride = max(lower, down - stride), min(upper, up + stride), stride * 2
    while left > 0 and not any(map(good, found.values())):
        bracket = _bracket(found.values(), target)
        if bracket is None:
            break
        middle = (bracket[0].alpha + bracket[1].alpha) / 2
        if middle in found:  # the two are neighbours in floating point
            break
        at(middle)
    points = sorted(found.values(), key=lambda point: point.alpha)
    nearest = min(points, key=lambda point: (abs(point.mean - target), abs(point.alpha)))
    reached = good(nearest) or _bracket(points, target) is not None
    ends: tuple[float | None, float | None] = (None, None)
    if reached:
        ends = _alpha_interval(points, nearest, target)
        for index, (side, edge) in enumerate(((-1, lower), (1, upper))):
            # An end of the interval may cross the target outside of what was measured to match the mean.
            stride = first_stride
            while ends[index] is None and left > 0 and side * (edge - nearest.alpha) > 0:
                alpha = side * min(side * edge, side * nearest.alpha + stride)
                at(alpha)
                points = sorted(found.values(), key=lambda point: point.alpha)
                ends = _alpha_interval(points, nearest, target)
                stride *= 2
                if alpha == edge:
                    break
    return Match(nearest.alpha, nearest.mean, nearest.low, nearest.high, target, reached, *ends, tuple(points))


def _layer_range(
    layer: int, curve: Sequence[DosePoint], scale: Scale, coherence_margin: float, repetition_margin: float
) -> LayerRange:
    points = sorted(curve, key=lambda point: point.alpha)
    zero = next((index for index, point in enumerate(points) if point.alpha == 0), None)
    if zero is None:
        raise SpecError(f"the dose curve of layer {layer} lacks alpha 0, which the others are compared with")
    base = points[zero]

    def sound(point: DosePoint) -> bool:
        coherent = (
            point.coherence is None or base.coherence is None or (point.coherence >= base.coherence - coherence_margin)
        )
        varied = (
            point.repetition is None
            or base.repetition is None
            or (point.repetition <= base.repetition + repetition_margin)
        )
        return coherent and varied and math.isfinite(point.mean)

    def follow(direction: int, end: int, rising: bool) -> tuple[int, str]:
        at = zero
        while at != end:
            ahead, here = points[at + direction], points[at]
            if not sound(ahead):
                return at, f"text falls apart at alpha {ahead.alpha:g}"
            first, second = (here, ahead) if direction > 0 else (ahead, here)
            if (second.high < first.low) if rising else (second.low > first.high):
                return at, f"the mean turns back at alpha {ahead.alpha:g}"
            at += direction
        return at, ""

    best: LayerRange | None = None
    for rising in (True, False):
        first, below = follow(-1, 0, rising)
        last, above = follow(1, len(points) - 1, rising)
        moved = _distance(points[first].mean, points[last].mean, scale) * (1 if rising else -1)
        why = "; ".join(filter(None, (below, above))) or "all alphas measured are sound"
        one = LayerRange(layer, points[first].alpha, points[last].alpha, moved, rising, last - first + 1, why)
        if best is None or one.range > best.range:
            best = one
    assert best is not None
    return best


def _distance(low: float, high: float, scale: Scale) -> float:
    if scale == "difference":
        return high - low
    if low <= 0 or high <= 0:
        raise SpecError("a ratio of means needs means above 0: use the scale 'difference' for this behaviour")
    return math.log(high / low)


def _bracket(points: Iterable[DosePoint], target: float) -> tuple[DosePoint, DosePoint] | None:
    """The narrowest pair of neighbouring points on either side of the target."""
    ordered = sorted(points, key=lambda point: point.alpha)
    pairs = [
        (one, two) for one, two in pairwise(ordered) if min(one.mean, two.mean) <= target <= max(one.mean, two.mean)
    ]
    return min(pairs, key=lambda pair: abs(pair[0].alpha) + abs(pair[1].alpha), default=None)


def _alpha_interval(
    points: Sequence[DosePoint], nearest: DosePoint, target: float
) -> tuple[float | None, float | None]:
    """Where the ends of the interval cross the target, nearest to the match, by linear interpolation."""
    crossings: list[float] = []
    for name in ("low", "high"):
        values = [(point.alpha, float(getattr(point, name))) for point in points]
        found = [
            one if a == b else one + (two - one) * (target - a) / (b - a)
            for (one, a), (two, b) in pairwise(values)
            if min(a, b) <= target <= max(a, b)
        ]
        if found:
            crossings.append(min(found, key=lambda alpha: abs(alpha - nearest.alpha)))
        else:
            crossings.append(math.nan)
    first, second = crossings
    rising = points[-1].mean >= points[0].mean
    # On a rising curve the upper end of the interval meets the target first.
    low, high = (second, first) if rising else (first, second)
    return (None if math.isnan(low) else low), (None if math.isnan(high) else high)
