"""The microscope as a figure: the parts of each condition's effect. What leaks is the figure `heatmap`."""

from __future__ import annotations

from windowshift.core.measure.microscope import PARTS, Microscope
from windowshift.core.report.figure import GLYPHS, TONES, Plot, Series

TITLES = {
    "effect": "effect",
    "conditionalization": "conditionalization",
    "under_training": "under-training",
    "inoculation": "inoculation",
}


def parts_plot(found: Microscope, arm: str, generate: str) -> Plot:
    """The parts of each condition's effect with their intervals, one series a part, side by side."""
    dissections = [one for one in found.dissections if (one.arm, one.generate) == (arm, generate)]
    words = found.scale.words
    factor = words.effect_format.factor
    title = f"{found.behaviour.name}: what training under a condition prevents"
    series = []
    for place, name in enumerate(PARTS):
        there = [(x, part) for x, one in enumerate(dissections) if (part := one.parts[name]) is not None]
        if not there:
            continue
        shift = (place - (len(PARTS) - 1) / 2) * 0.18
        series.append(
            Series(
                TITLES[name],
                "points",
                tuple(x + shift for x, _ in there),
                tuple(part.value * factor for _, part in there),
                (),
                tuple(None if part.low is None else part.low * factor for _, part in there),
                tuple(None if part.high is None else part.high * factor for _, part in there),
                TONES[place % len(TONES)],
                GLYPHS[place],
            )
        )
    note = dissections[0].verdict if dissections else "no train condition has controls here"
    ticks = tuple((float(x), one.train) for x, one in enumerate(dissections))
    y = f"prevented, {words.effect_short}"
    return Plot("microscope", title, "trained under", y, tuple(series), ticks, note=note)
