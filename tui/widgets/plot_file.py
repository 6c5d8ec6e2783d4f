"""Figures as files: PNG and SVG through matplotlib, and the numbers as CSV. Runs in a worker thread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from windowshift.core.contract.errors import MissingExtraError, StoreError
from windowshift.tui.text.plot import GLYPHS, Heat, Plot, Series

_MARKERS = dict(zip(GLYPHS, "o^sDP*oX", strict=True))
_COLOURS = {
    "accent": "#e69f00", "blue": "#0072b2", "good": "#009e73", "warn": "#cc79a7", "bad": "#d55e00",
    "dim": "#7f7f7f", "strong": "#000000",
}  # fmt: skip


def write_plot(plot: Plot, folder: Path, name: str) -> list[Path]:
    """Write `name`.csv, and `name`.png and `name`.svg where matplotlib is installed; return what was written.

    Raises:
        StoreError: the folder cannot be written.
        MissingExtraError: matplotlib is missing; the CSV is written all the same.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        numbers = folder / f"{name}.csv"
        numbers.write_text(plot.table().csv(), encoding="utf-8")
    except OSError as error:
        raise StoreError(f"cannot write {folder} ({error.strerror}): make it writable and free some space") from error
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(f"a picture (its numbers are in {numbers})", "export", "matplotlib") from error
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(plot.title, fontsize=10)
    if plot.heat is not None:
        _heat(figure, axes, plot.heat)
    else:
        _axes(axes, plot)
    written = [numbers]
    try:
        for suffix in (".png", ".svg"):
            path = folder / f"{name}{suffix}"
            figure.savefig(path)
            written.append(path)
    except OSError as error:
        raise StoreError(f"cannot write {folder} ({error.strerror}): make it writable and free some space") from error
    return written


def _axes(axes: Any, plot: Plot) -> None:
    for one in plot.series:
        _series(axes, one)
    for x, y, word in plot.marks:
        axes.annotate(word, (x, y), textcoords="offset points", xytext=(0, 7), ha="center", weight="bold")
    if plot.ticks:
        axes.set_xticks([at for at, _ in plot.ticks], [name for _, name in plot.ticks], rotation=30, ha="right")
    start, stop = axes.get_xlim()
    for rule in plot.rules:
        end = stop if rule.end is None else rule.end
        axes.hlines(rule.y, start, end, color="#999999", linewidth=0.8, linestyle=":", zorder=0)
        axes.annotate(rule.name, (start, rule.y), textcoords="offset points", xytext=(3, 2), fontsize=7)
    axes.set_xlabel(plot.x)
    axes.set_ylabel(plot.y)
    if plot.log:
        axes.set_yscale("log")
    else:
        axes.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    if len(plot.series) > 1:
        axes.legend(frameon=False, fontsize=8)


def _series(axes: Any, one: Series) -> None:
    colour = _COLOURS[one.tone]
    if one.kind == "line":
        axes.plot(one.xs, one.ys, color=colour, label=one.name)
        return
    if one.kind == "band":
        ends = zip(one.xs, one.low, one.high, strict=True)
        known = [(x, low, high) for x, low, high in ends if low is not None and high is not None]
        xs, lows, highs = (list(values) for values in zip(*known, strict=True)) if known else ([], [], [])
        axes.fill_between(xs, lows, highs, color=colour, alpha=0.2, linewidth=0, label=one.name)
        return
    if one.kind == "bars":
        axes.bar(one.xs, one.ys, width=0.6, color=colour, label=one.name)
    else:
        axes.plot(one.xs, one.ys, _MARKERS.get(one.glyph, "o"), color=colour, label=one.name)
    for x, low, high in zip(one.xs, one.low, one.high, strict=False):
        if low is not None and high is not None:
            axes.plot([x, x], [low, high], color=colour if one.kind == "points" else "#444444", linewidth=1)
    for x, y, label in zip(one.xs, one.ys, one.labels, strict=False):
        axes.annotate(label, (x, y), textcoords="offset points", xytext=(5, 3), fontsize=7)


def _heat(figure: Any, axes: Any, heat: Heat) -> None:
    values = [[float("nan") if value is None else value for value in row] for row in heat.values]
    limit = max((abs(v) for row in values for v in row if v == v), default=1.0) or 1.0
    image = axes.imshow(values, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
    axes.set_xticks(range(len(heat.columns)), heat.columns, rotation=30, ha="right")
    axes.set_yticks(range(len(heat.rows)), heat.rows)
    axes.set_xlabel("eval condition")
    axes.set_ylabel("train condition")
    for r, row in enumerate(values):
        for c, value in enumerate(row):
            if value == value:
                axes.text(c, r, f"{value:+.2f}", ha="center", va="center", fontsize=7)
    figure.colorbar(image)
