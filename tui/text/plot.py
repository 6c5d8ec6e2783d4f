"""A figure as data: drawn in the terminal, written to a file, or copied as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from windowshift.tui.text.table import Table, number, table

Tone = Literal["accent", "blue", "good", "warn", "bad", "dim", "strong"]
TONES: tuple[Tone, ...] = ("accent", "blue", "good", "warn", "bad", "strong", "dim")
"""The colours of series, in order; each series has its own glyph too."""

GLYPHS = "●▲■◆✚★○△"


@dataclass(frozen=True, slots=True)
class Series:
    """Points, a line or bars under one name; `low` and `high` are 95 % intervals of the ys, None where unknown.

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
class Plot:
    """A figure; one without series and heat has a reason in `note`. `marks` are points with a word beside them.

    `log` draws the y axis in powers; every y must be above 0 then.
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

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return self.heat is None and not any(one.xs for one in self.series)

    def table(self) -> Table:
        """Return the numbers behind the figure, one row a point."""
        if self.heat is not None:
            heat = self.heat
            return table(
                ("train", *heat.columns),
                ((name, *map(number, values)) for name, values in zip(heat.rows, heat.values, strict=True)),
            )
        heads = ("series", "label", self.x or "x", self.y or "y", "low", "high")
        rows = [row for one in self.series if one.kind != "band" for row in _rows(one, self.ticks)]
        return table(
            heads, [*rows, *((rule.name, "", number(rule.end), number(rule.y), "", "") for rule in self.rules)]
        )


def _rows(series: Series, ticks: Sequence[tuple[float, str]]) -> list[tuple[str, ...]]:
    names = dict(ticks)
    rows: list[tuple[str, ...]] = []
    for i, (x, y) in enumerate(zip(series.xs, series.ys, strict=True)):
        label = series.labels[i] if series.labels else names.get(round(x), "")
        low, high = (bounds[i] if bounds else None for bounds in (series.low, series.high))
        rows.append((series.name, label, number(x), number(y), number(low), number(high)))
    return rows
