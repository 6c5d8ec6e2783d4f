"""Distributions over one axis, one ridge a cell, drawn with block characters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.style import Style
from textual.strip import Strip

from windowshift.core.contract.records import Summary
from windowshift.tui.text import formats
from windowshift.tui.text.pieces import Pieces, fit
from windowshift.tui.text.theme import Ink
from windowshift.tui.widgets.inked import Drawn, ink_of

_EIGHTHS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Ridge:
    """One cell's scores, with the mean and its interval."""

    label: str
    values: tuple[float, ...]
    mean: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, label: str, values: tuple[float, ...], summary: Summary | None) -> Ridge:
        """Return the ridge of a cell."""
        if summary is None:
            return cls(label, values, None, None, None)
        return cls(label, values, summary.mean, summary.low, summary.high)


def axis(ridges: Sequence[Ridge]) -> tuple[float, float, float]:
    """Return (low, high, step) of the axis that all ridges share, on round numbers.

    It reaches to the 99th percentile, so that one outlier does not squeeze the rest.
    """
    values = sorted(value for ridge in ridges for value in ridge.values)
    if not values:
        return 0.0, 1.0, 0.5
    low, high = values[0], values[min(len(values) - 1, int(len(values) * 0.99))]
    if low > 0 and low < high * 0.5:
        low = 0.0
    if high <= low:
        low, high = low - 0.5, high + 0.5
    step = 10.0 ** math.floor(math.log10(high - low))
    step *= next((part for part in (0.2, 0.5, 1.0) if (high - low) / (step * part) <= 5), 2.0)
    return math.floor(low / step) * step, math.ceil(high / step) * step, step


def bin_count(values: int, width: int) -> int:
    """Return how many bins a sample deserves (about twice its square root), a divisor of the width nearly."""
    wanted = max(8, min(width, round(2 * math.sqrt(values))))
    return max(1, width // max(1, width // wanted))


def heights(values: Sequence[float], low: float, high: float, bins: int) -> list[int]:
    """Return how many values fall into each bin; what is above `high` counts in the last."""
    counts = [0] * bins
    for value in values:
        place = int((value - low) / (high - low) * bins)
        counts[max(0, min(bins - 1, place))] += 1
    return counts


def _tick(value: float, step: float) -> str:
    return formats.plain(round(value) if step >= 1 else value)


class Distribution(Drawn):
    """Ridges one above the other: the first is the cell, below it the base model and any pinned cell."""

    DEFAULT_CSS = "Distribution { height: 1fr; width: 1fr; }"

    def __init__(self) -> None:
        super().__init__()
        self.ridges: tuple[Ridge, ...] = ()
        self.unit = ""
        self._drawn: tuple[tuple[int, int], list[Pieces]] | None = None

    def show(self, ridges: tuple[Ridge, ...], unit: str) -> None:
        """Show these distributions."""
        if (ridges, unit) != (self.ridges, self.unit):
            self.ridges, self.unit = ridges, unit
            self._drawn = None
            self.refresh()

    def notify_style_update(self) -> None:
        """Draw anew in the colours of another theme."""
        super().notify_style_update()
        self._drawn = None

    def render_line(self, y: int) -> Strip:
        """Draw a line."""
        width, height = self.size
        if self._drawn is None or self._drawn[0] != (width, height):
            self._drawn = ((width, height), lines_of(self.ridges, self.unit, width, height, ink_of(self)))
        lines = self._drawn[1]
        return self.drawn(lines[y] if y < len(lines) else [])


def lines_of(ridges: Sequence[Ridge], unit: str, width: int, height: int, ink: Ink) -> list[Pieces]:
    """Return the lines of ridges one above the other, and of the axis under them."""
    if not any(ridge.values for ridge in ridges):
        return [[(" no scores yet", ink.dim)]]
    label = max(len(ridge.label) for ridge in ridges) + 2
    low, high, step = axis(ridges)
    # The last number stands under its place, and its unit to the right of it.
    last = _tick(high, step)
    room = max(8, width - label - max(2, len(last) - len(last) // 2 + len(unit) + bool(unit)))
    bins = bin_count(max(len(ridge.values) for ridge in ridges), room)
    wide = max(1, room // bins)
    each, spare = divmod(max(len(ridges), height - 1), len(ridges))
    inks = (ink.accent, ink.blue, ink.good)
    lines: list[Pieces] = []
    for number, ridge in enumerate(ridges):
        rows = each + (number < spare)
        lines += _ridge(ridge, inks[number % 3], (low, high), (label, bins, wide), rows, ink, marker=rows > 1)
    lines.append(_axis((low, high, step), unit, label, bins * wide, width, ink))
    return lines


def _ridge(
    ridge: Ridge,
    style: Style,
    span: tuple[float, float],
    sizes: tuple[int, int, int],
    rows: int,
    ink: Ink,
    *,
    marker: bool,
) -> list[Pieces]:
    label, bins, wide = sizes
    rows -= marker
    counts = heights(ridge.values, *span, bins)
    top = max(counts) or 1
    eighths = [max(1, round(count / top * rows * 8)) if count else 0 for count in counts]
    lines: list[Pieces] = []
    for row in reversed(range(rows)):
        text = "".join(_EIGHTHS[max(0, min(8, size - row * 8))] * wide for size in eighths)
        name = fit(f" {ridge.label}", label) if row == 0 else " " * label
        lines.append([(name, style), (text, style)])
    if marker:
        lines.append([(" " * label, style), *_mean_line(ridge, style, span, bins * wide, ink.faint)])
    return lines


def _mean_line(ridge: Ridge, style: Style, span: tuple[float, float], width: int, faint: Style) -> Pieces:
    """Draw the mean and its interval as `━━◆━━` under the ridge."""
    if ridge.mean is None:
        return [("╌" * width, faint)]

    def place(value: float) -> int:
        return max(0, min(width - 1, int((value - span[0]) / (span[1] - span[0]) * width)))

    marks = ["╌"] * width
    low, middle, high = (place(ridge.mean if v is None else v) for v in (ridge.low, ridge.mean, ridge.high))
    marks[low : high + 1] = "━" * (high + 1 - low)
    marks[middle] = "◆"
    line = "".join(marks)
    return [(line[:low], faint), (line[low : high + 1], style), (line[high + 1 :], faint)]


def _axis(ticks: tuple[float, float, float], unit: str, label: int, width: int, whole: int, ink: Ink) -> Pieces:
    """Return the numbers of the axis, each under its place; `whole` is the width of the widget."""
    low, high, step = ticks
    line = [" "] * max(whole, width + label)
    count = round((high - low) / step)
    for tick in (count, *range(count)):  # the last one carries the unit and must be there
        value = low + tick * step
        text = _tick(value, step)
        at = label + round(tick / count * width)
        start = max(0, at - len(text) // 2)
        if tick == count and unit:
            text += f" {unit}"
        start = min(start, max(0, len(line) - len(text)))  # a widget too narrow for its own unit
        if "".join(line[max(0, start - 1) : start + len(text) + 1]).strip():
            continue  # two numbers would touch
        line[start : start + len(text)] = list(text)
    return [("".join(line), ink.dim)]
