"""Calibration: which layer to push at. Pure functions of measured numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.scale import Scale


@dataclass(frozen=True, slots=True)
class DosePoint:
    """The base model under one alpha: mean of the behaviour with its interval, and how sound the text is.

    `dose` is the alpha in residual-RMS units, `n` counts the completions behind the mean and `truncated` those that
    were cut off. `coherence` and `repetition` are means of the behaviours of that name
    (`windowshift.core.settings.soundness`) over as many completions as their own n says. None: not measured.
    """

    alpha: float
    mean: float
    low: float | None
    high: float | None
    coherence: float | None = None
    repetition: float | None = None
    dose: float | None = None
    n: int = 0
    truncated: int = 0
    coherence_n: int | None = None
    repetition_n: int | None = None


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


def pick_layer(
    curves: dict[int, Sequence[DosePoint]],
    *,
    scale: Scale,
    coherence_margin: float = 0.5,
    repetition_margin: float = 0.2,
) -> LayerChoice:
    """Pick the layer whose dose-response is monotone over the largest range of the mean, while text stays sound.

    From alpha 0, each curve is followed both ways until coherence falls by more than `coherence_margin` nats
    a token below what it is at alpha 0, or repetition rises by more than `repetition_margin` above it, or the
    mean turns back: a step against the direction of the curve whose two intervals do not overlap. The range
    is how far the means at both ends lie apart on the scale. The lower layer wins a tie.

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
        f"largest {scale.kind} of means over alphas around 0 that keep the curve monotone, coherence within "
        f"{coherence_margin:g} nats a token and repetition within {repetition_margin:g} of the unsteered model"
    )
    return LayerChoice(best.layer, ranges, rule)


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
        return coherent and varied and math.isfinite(scale.distance(base.mean, point.mean, base.n, point.n))

    def follow(direction: int, end: int, rising: bool) -> tuple[int, str]:
        at = zero
        while at != end:
            ahead, here = points[at + direction], points[at]
            if not sound(ahead):
                return at, f"text falls apart at alpha {ahead.alpha:g}"
            first, second = (here, ahead) if direction > 0 else (ahead, here)
            if _apart(second, first) if rising else _apart(first, second):
                return at, f"the mean turns back at alpha {ahead.alpha:g}"
            at += direction
        return at, ""

    best: LayerRange | None = None
    for rising in (True, False):
        first, below = follow(-1, 0, rising)
        last, above = follow(1, len(points) - 1, rising)
        low, high = points[first], points[last]
        moved = scale.distance(low.mean, high.mean, low.n, high.n) * (1 if rising else -1)
        if not math.isfinite(moved):
            raise SpecError("a ratio of means needs means above 0: use the scale 'difference' for this behaviour")
        why = "; ".join(filter(None, (below, above))) or "all alphas measured are sound"
        one = LayerRange(layer, points[first].alpha, points[last].alpha, moved, rising, last - first + 1, why)
        if best is None or one.range > best.range:
            best = one
    assert best is not None
    return best


def _apart(low: DosePoint, high: DosePoint) -> bool:
    """Whether one mean lies below another, interval and all."""
    upper = low.mean if low.high is None else low.high
    return upper < (high.mean if high.low is None else high.low)
