"""A figure as data: drawn in a terminal, written to a file, or copied as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from windowshift.core.contract.records import ExperimentRow

Tone = Literal["accent", "blue", "good", "warn", "bad", "dim", "strong"]
TONES: tuple[Tone, ...] = ("accent", "blue", "good", "warn", "bad", "strong", "dim")
"""The colours of series, in order; each series has its own glyph too."""

GLYPHS = "●▲■◆✚★○△"

ARM_LOOKS: dict[str, tuple[Tone, str]] = {"prefix": ("accent", "●"), "steering": ("blue", "▲")}
"""The colour and the glyph of each arm, the same in every figure."""

BARS = 0.75
"""The part of the room at a place that bars which stand side by side take together."""

REHEARSAL = "rehearsal model, no evidence about language models"


def subject(experiment: ExperimentRow, *what: str) -> str:
    """Return the line under a figure's title: the experiment, its model, and what of it the figure shows.

    A rehearsal model is marked as one: a figure is passed on without the page that it came from.
    """
    model = f"{experiment.model} ({REHEARSAL})" if experiment.rehearsal else experiment.model
    return " · ".join((experiment.name, model, *what))


@dataclass(frozen=True, slots=True)
class Series:
    """Points, a line or bars under one name; `low` and `high` are 95 % intervals of the ys, None where unknown.

    `left` and `right` are those of the xs, where xs are measured too.

    A band is drawn as the intervals alone.
    """

    name: str
    kind: Literal["points", "line", "bars", "band"]
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    labels: tuple[str, ...] = ()
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    tone: Tone = "accent"
    glyph: str = "●"
    left: tuple[float | None, ...] = ()
    right: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """A named height: a horizontal line from the left edge to `end`, or through the figure where that is None."""

    name: str
    y: float
    end: float | None = None


@dataclass(frozen=True, slots=True)
class Heat:
    """Numbers by row and column; `level` 1 is the strongest colour."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Box:
    """A distribution under a name: its 5th, 25th, 50th, 75th and 95th percentile, mean and number of scores."""

    name: str
    percentiles: tuple[float, float, float, float, float]
    mean: float
    n: int
    tone: Tone = "accent"


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure; one with nothing to draw has a reason in `note`. `marks` are points with a word beside them.

    `of` says what it is of: experiment, model, arm, data, and whether the model is a rehearsal. `log` draws the y axis
    in powers; every y must be above 0 then. `stacked` puts bars at the same place on top of each other. `behaviours`
    are the names of those that it draws, where they are several.
    """

    name: str
    title: str
    x: str = ""
    y: str = ""
    series: tuple[Series, ...] = ()
    ticks: tuple[tuple[float, str], ...] = ()
    heat: Heat | None = None
    note: str = ""
    marks: tuple[tuple[float, float, str], ...] = ()
    rules: tuple[Rule, ...] = ()
    log: bool = False
    boxes: tuple[Box, ...] = ()
    stacked: bool = False
    of: str = ""
    behaviours: tuple[str, ...] = ()

    @property
    def bar_width(self) -> float:
        """How wide a bar is, where places are 1 apart: those of several series stand side by side unless stacked."""
        bars = sum(one.kind == "bars" for one in self.series)
        return 0.6 if self.stacked or bars < 2 else BARS / bars

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return self.heat is None and not self.boxes and not any(one.xs for one in self.series)

    def rows(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the numbers behind the figure as heads and rows of text, one row a point."""
        if self.heat is not None:
            heat = self.heat
            rows = [(name, *map(_number, values)) for name, values in zip(heat.rows, heat.values, strict=True)]
            return ("train", *heat.columns), rows
        if self.boxes:
            heads = ("label", "p5", "p25", "median", "p75", "p95", "mean", "n")
            return heads, [
                (one.name, *map(_number, one.percentiles), _number(one.mean), str(one.n)) for one in self.boxes
            ]
        names: tuple[str, ...] = ("series", "label", self.x or "x", self.y or "y", "low", "high")
        wide = any(one.left for one in self.series)
        if wide:
            names = (*names, "x low", "x high")
        rows = [row for one in self.series if one.kind != "band" for row in _rows(one, self.ticks, wide=wide)]
        return names, [*rows, *((rule.name, "", _number(rule.end), _number(rule.y), "", "") for rule in self.rules)]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _rows(series: Series, ticks: Sequence[tuple[float, str]], *, wide: bool) -> list[tuple[str, ...]]:
    names = dict(ticks)
    rows: list[tuple[str, ...]] = []
    for i, (x, y) in enumerate(zip(series.xs, series.ys, strict=True)):
        label = series.labels[i] if series.labels else names.get(round(x), "")
        low, high = (bounds[i] if bounds else None for bounds in (series.low, series.high))
        row = (series.name, label, _number(x), _number(y), _number(low), _number(high))
        ends = (bounds[i] if bounds else None for bounds in (series.left, series.right))
        rows.append((*row, *map(_number, ends)) if wide else row)
    return rows
