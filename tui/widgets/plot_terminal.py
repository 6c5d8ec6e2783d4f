"""Figures in the terminal: plotext draws, its colours become ours. Runs in a worker thread."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from rich.ansi import AnsiDecoder
from rich.color import Color
from rich.style import Style
from rich.text import Text

from windowshift.core.contract import sanitise
from windowshift.core.report.figure import Heat, Plot, Series
from windowshift.tui.read.cell_labels import labels, short_label
from windowshift.tui.text import formats
from windowshift.tui.text.pieces import Pieces, fit, length
from windowshift.tui.text.theme import Ink, scale, step_of

_LOCK = threading.Lock()
"""plotext draws on one figure for the whole process."""

_POINTS = 400
"""Points of a series that are drawn: more would cover each other."""

_CODES = {"accent": 1, "blue": 2, "good": 3, "warn": 4, "bad": 5, "dim": 6, "strong": 7, "faint": 8}
"""The colour number under which plotext draws a tone; it comes back as this number and becomes the theme's."""


def draw(plot: Plot, width: int, height: int, ink: Ink, *, few_colours: bool = False) -> list[Pieces]:
    """Return the lines of a figure."""
    if plot.empty:
        return [[(f" {plot.note or 'nothing to draw yet'}", ink.dim)]]
    if width < 20 or height < 5:
        return [[(" too small for a figure", ink.dim)]]
    if plot.heat is not None:
        return _heat(plot.heat, width, ink, few_colours)
    legend = _legend(plot, width, ink)[: max(1, height // 6)]
    with _LOCK:
        drawn = _plotext(plot, width, height - len(legend))
    lines = [_pieces(line, ink) for line in AnsiDecoder().decode(drawn)]
    return [*lines[: height - len(legend)], *legend]


def _once(data: Iterable[Hashable]) -> list[Hashable]:
    return list(dict.fromkeys(data))


def _plotext(plot: Plot, width: int, height: int) -> str:
    import plotext as plt

    # It takes what is there twice out by a set, so that marks on one place, and names side by side, would be drawn in
    # another order in every process.
    plt._utility.no_duplicates = _once
    plt.clear_figure()
    plt.limit_size(False, False)
    plt.plotsize(width, height)
    plt.theme("clear")
    plt.xaxes(True, False)
    plt.yaxes(True, False)
    up = math.log2 if plot.log else float
    xs = [x for one in plot.series for x in one.xs]
    for rule in plot.rules:
        end = max(xs) if rule.end is None else rule.end
        plt.plot([min(xs), end], [up(rule.y)] * 2, marker="braille", color=_CODES["faint"])
    # Bands under lines, and points on them.
    for one in plot.series:
        _crosses(plt, one, up)
    for one in sorted(_piled(plot), key=lambda series: ("band", "line", "bars", "points").index(series.kind)):
        _series(plt, one, up, plot.bar_width)
    for x, y, word in plot.marks:
        plt.text(sanitise.line(word, 12), x, y, color=_CODES["strong"], alignment="center")
    if plot.ticks:
        room = max(3, (width - 10) // max(1, len(plot.ticks)) - 1)
        names = labels([sanitise.line(name, 40) for _, name in plot.ticks], room)
        plt.xticks([at for at, _ in plot.ticks], names)
    else:
        xs += [end for one in plot.series for end in (*one.left, *one.right) if end is not None]
        plt.xticks(*_marks(min(xs), max(xs), max(2, width // 14)))
    if plot.x:
        plt.xlabel(plot.x)
    low, high = _span(plot, up)
    plt.ylim(low, high)
    if any(one.left for one in plot.series):
        air = (max(xs) - min(xs)) * 0.02 or 0.5
        span = min(xs) - air, max(xs) + air
        plt.xlim(*span)
        # Beside the figure stand the numbers of the y axis, below it those of the x axis and its name.
        for x, y, name in _names(plot, (span, (low, high)), (width - 4, height - 3), up):
            plt.text(name, x, y, color=_CODES["dim"], alignment="left")
    if plot.rules:
        plt.yticks(*_heights(plot, low, high, height - 3, up, long=width >= 70))
    else:
        plt.yticks(*_marks(low, high, max(2, height // 3)))
    return str(plt.build())


def _piled(plot: Plot) -> Sequence[Series]:
    """Return the series; stacked bars reach up to where theirs ends, the highest first: the next covers its rest."""
    if not plot.stacked:
        return plot.series
    tops = [0.0] * max((len(one.xs) for one in plot.series), default=0)
    found: list[Series] = []
    for one in plot.series:
        tops = [top + y for top, y in zip(tops, one.ys, strict=True)]
        found.append(replace(one, ys=tuple(tops)))
    return found[::-1]


def _crosses(plt: Any, one: Series, up: Callable[[float], float]) -> None:
    """Draw the intervals of points whose both sides are measured; points of one measured side have theirs in files."""
    if one.kind != "points" or not one.left:
        return
    bounds = zip(one.xs, one.ys, one.left, one.right, one.low, one.high, strict=True)
    for x, y, left, right, low, high in bounds:
        if left is not None and right is not None:
            plt.plot([left, right], [up(y)] * 2, marker="braille", color=_CODES[one.tone])
        if low is not None and high is not None:
            plt.plot([x, x], [up(low), up(high)], marker="braille", color=_CODES[one.tone])


def _names(
    plot: Plot,
    spans: tuple[tuple[float, float], tuple[float, float]],
    size: tuple[int, int],
    up: Callable[[float], float],
) -> list[tuple[float, float, str]]:
    """Return what stands beside such points: their names, where they cover neither another name nor a point.

    A name for which there is no such place is left out; the numbers behind the figure have it.
    """
    (left, right), (low, high) = spans
    wide, tall = max(1, size[0] - 1), max(1, size[1] - 1)

    def at(x: float, y: float) -> tuple[int, int]:
        return round((x - left) / (right - left) * wide), round((up(y) - low) / (high - low) * tall)

    named = [named for one in plot.series if one.left for named in zip(one.xs, one.ys, one.labels, strict=False)]
    points = [at(x, y) for x, y, _ in named]
    names: set[tuple[int, int]] = set()
    found = []
    for number, (_, _, label) in enumerate(named):
        text = sanitise.line(label, 16)
        column, row = points[number]
        # A name right beside another point would be read as that one's.
        others = (at for place, at in enumerate(points) if place != number)
        taken = names | {(column, row)} | {(c + by, r) for c, r in others for by in (-1, 0, 1)}
        places = [(column + 2, row), (column - 1 - len(text), row)]
        places += [(column - len(text) // 2, row + by) for by in (1, -1)]
        for start, line in places:
            own = {(start + n, line) for n in range(-1, len(text) + 1)}
            if start >= 0 and start + len(text) <= wide + 1 and 0 <= line <= tall and not own & taken:
                names |= own
                found.append((left + start / wide * (right - left), low + line / tall * (high - low), text))
                break
    return found


def _series(plt: Any, one: Series, up: Callable[[float], float], width: float) -> None:
    step = max(1, len(one.xs) // _POINTS)
    xs, ys, colour = list(one.xs[::step]), [up(y) for y in one.ys[::step]], _CODES[one.tone]
    if not xs:
        return
    if one.kind == "band":
        for ends in (one.low, one.high):
            known = [(x, up(y)) for x, y in zip(one.xs, ends, strict=True) if y is not None]
            plt.plot([x for x, _ in known], [y for _, y in known], marker="braille", color=colour)
    elif one.kind == "line":
        plt.plot(xs, ys, marker="braille", color=colour)
    elif one.kind == "points":
        plt.scatter(xs, ys, marker=one.glyph, color=colour)
    else:
        plt.bar(xs, ys, color=colour, width=width, marker="hd")


def _marks(low: float, high: float, most: int) -> tuple[list[float], list[str]]:
    """Return at most about `most` round numbers between two ends, with their text."""
    step = 10.0 ** math.floor(math.log10((high - low) or 1.0))
    step *= next((part for part in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if (high - low) / (step * part) <= most), 10.0)
    values = [step * place for place in range(math.ceil(low / step), math.floor(high / step) + 1)]
    text = "{:.0f}" if step >= 1 else "{:.1f}" if step >= 0.1 else "{:.2f}"
    return values, [text.format(value).replace("-", formats.MINUS) for value in values]


def _heights(
    plot: Plot, low: float, high: float, rows: int, up: Callable[[float], float], *, long: bool
) -> tuple[list[float], list[str]]:
    """Return the heights that have a name, and numbers where there is room between them; each has a row of its own."""
    row = (high - low) / max(1, rows)
    found: list[tuple[float, str]] = []

    def free(y: float) -> bool:
        return low <= y <= high and all(abs(y - other) >= row * 1.2 for other, _ in found)

    for rule in plot.rules:
        if free(up(rule.y)):
            name = sanitise.line(rule.name, 40)
            text = f"{short_label(name, 16)} {formats.plain(rule.y)}" if long else short_label(name, 8)
            found.append((up(rule.y), text))
    bottom, top = (2**low, 2**high) if plot.log else (low, high)
    ladder = (
        [step * 10.0**power for power in range(-3, 7) for step in (1, 2, 5)] if plot.log else _marks(low, high, 6)[0]
    )
    for y in ladder:
        if bottom < y < top and free(up(y)):
            found += [(up(y), formats.plain(y))]
    found.sort()
    return [y for y, _ in found], [text for _, text in found]


def _span(plot: Plot, up: Callable[[float], float]) -> tuple[float, float]:
    """Return the lower and the upper end of the y axis, with a little air."""
    ys = [up(y) for one in _piled(plot) for y in one.ys]
    drawn = (one for one in plot.series if one.kind == "band" or one.left)
    ends = [end for one in drawn for end in (*one.low, *one.high)]
    ys += [up(end) for end in ends if end is not None]
    ys += [up(rule.y) for rule in plot.rules]
    if any(one.kind == "bars" for one in plot.series):
        ys.append(0.0)
    low, high = min(ys), max(ys)
    air = (high - low) * 0.05 or 0.5
    return low - air, high + air


def _pieces(line: Text, ink: Ink) -> Pieces:
    pieces: Pieces = []
    styles = [ink.dim] * len(line.plain)
    for span in line.spans:
        styles[span.start : span.end] = [_style(span.style, ink)] * (span.end - span.start)
    for character, style in zip(line.plain, styles, strict=True):
        if pieces and pieces[-1][1] is style:
            pieces[-1] = (pieces[-1][0] + character, style)
        else:
            pieces.append((character, style))
    return pieces


def _style(style: str | Style, ink: Ink) -> Style:
    colour = style.color if isinstance(style, Style) else None
    if isinstance(colour, Color) and colour.number is not None:
        tone = next((name for name, code in _CODES.items() if code == colour.number), "dim")
        found: Style = getattr(ink, tone)
        return found
    return ink.dim


def _legend(plot: Plot, width: int, ink: Ink) -> list[Pieces]:
    """Return what the y axis and the series are, in as many lines as it takes."""
    parts: list[Pieces] = [[(f"↑ {plot.y}   ", ink.dim)]] if plot.y else []
    for one in plot.series:
        glyph = {"line": "─", "bars": "█", "band": "┄"}.get(one.kind, one.glyph)
        parts.append([(f"{glyph} ", getattr(ink, one.tone)), (f"{sanitise.line(one.name, 40)}  ", ink.text)])
    lines: list[Pieces] = [[(" ", ink.dim)]]
    for part in parts:
        if length([*lines[-1], *part]) > width + 1 and len(lines[-1]) > 1:
            lines.append([(" ", ink.dim)])
        lines[-1] += part
    return lines


def _heat(heat: Heat, width: int, ink: Ink, few_colours: bool) -> list[Pieces]:
    names = [sanitise.line(name, 40) for name in heat.rows]
    label = min(16, max(len(name) for name in names) + 2)
    cell = max(5, min(11, (width - label) // max(1, len(heat.columns))))
    heads: Pieces = [(" " * label, ink.dim)]
    heads += [
        (fit(name, cell, "center"), ink.dim)
        for name in labels([sanitise.line(one, 40) for one in heat.columns], cell - 1)
    ]
    lines: list[Pieces] = [heads]
    for name, values in zip(names, heat.values, strict=True):
        row: Pieces = [(fit(f" {name}", label), ink.text)]
        for value in values:
            level = 0.0 if value is None else max(-1.0, min(1.0, value))
            style = ink.faint if value is None else scale(step_of(level), ink.dark, few_colours)
            row += [(fit(formats.signed(value), cell - 1, "center"), style), (" ", ink.dim)]
        lines.append(row)
    return lines
