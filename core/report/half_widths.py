"""How wide the intervals of a table are, where there is no room for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from windowshift.core.contract.scale import Scale
from windowshift.core.measure.measures import CellMeasure


def half_widths(cells: Sequence[CellMeasure], scale: Scale) -> str:
    """The half widths of the intervals, from the narrowest to the widest: of the mean for ratios, else plain."""
    found = [cell.mean for cell in cells if cell.mean]
    ratio = scale.kind == "ratio"
    halves = sorted(
        (one.high - one.low) / 2 / (abs(one.value) if ratio else 1)
        for one in found
        if one.low is not None and one.high is not None and (one.value or not ratio)
    )
    if not halves:
        return ""
    form = replace(scale.words.effect_format, sign=False)
    ends = [f"±{round(100 * half)}%" if ratio else f"±{form.with_unit(half)}" for half in (halves[0], halves[-1])]
    return " to ".join(dict.fromkeys(ends)) + (" of the mean" if ratio else "")
