"""What a cell of the grid looks like: its number, its sign, its colour, for each metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from windowshift.core.contract import sanitise
from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.number_format import NumberFormat
from windowshift.core.contract.records import BASE, Behaviour
from windowshift.core.contract.truncation import dagger
from windowshift.tui.read.column_heads import ColumnHead
from windowshift.tui.read.fits import Fits, effect_of, mean_of, spread_in, surprise_in
from windowshift.tui.read.snapshot import CellKey, GridCell, GridRow, GridSnapshot, finished
from windowshift.tui.text import formats
from windowshift.tui.text.table import TextTable, number, table

if TYPE_CHECKING:
    from windowshift.core.settings.published import PublishedSpread

Metric = Literal["uplift", "link", "mean", "width", "n", "truncated"]
METRICS: tuple[Metric, ...] = ("uplift", "link", "mean", "width", "n", "truncated")
CHANGES: tuple[Metric, ...] = ("uplift", "link")
"""Metrics that compare a cell with the base model; base cells show their mean."""
FaceKind = Literal["done", "live", "pending", "paused", "failed", "none"]

_FILLING = "○◔◑◕"


@dataclass(frozen=True, slots=True)
class Face:
    """A cell as drawn: `level` within -1 .. 1 is its colour, 0 no change, None uncoloured.

    A cell of several behaviours has `parts`, which stand side by side, or `shares`, which are stacked to the whole;
    `brief` is its text where there is little room. `dagger` stands behind a number that rests on completions which
    were cut off.
    """

    text: str
    detail: str = ""
    mark: str = ""
    level: float | None = None
    kind: FaceKind = "done"
    pinned: bool = False
    parts: tuple[Face, ...] = ()
    shares: tuple[float, ...] = ()
    brief: str = ""
    dagger: str = ""


@dataclass(frozen=True, slots=True)
class FaceRow:
    """A row as drawn; `pin` is the number under which it is pinned, or nothing."""

    label: str
    faces: tuple[Face, ...]
    summary: tuple[Face, ...]
    pin: str = ""


@dataclass(frozen=True, slots=True)
class MatrixModel:
    """All that the matrix draws; two models compare cell by cell. `foot` sums the columns up, or is nothing.

    `least` is how narrow a column may be.
    """

    heads: tuple[ColumnHead, ...]
    summaries: tuple[str, ...]
    base: FaceRow
    rows: tuple[FaceRow, ...]
    foot: FaceRow | None = None
    least: int = 7

    @property
    def columns(self) -> tuple[str, ...]:
        """The eval conditions."""
        return tuple(head.name for head in self.heads)

    @property
    def own(self) -> int:
        """How many columns, the first ones, are the arm's own."""
        return sum(not head.crossed for head in self.heads)

    @property
    def banded(self) -> bool:
        """Whether columns stand under bands that they share."""
        return any(head.band for head in self.heads)

    @property
    def daggers(self) -> bool:
        """Whether a number has a dagger."""
        return any(one.dagger for row in (self.base, *self.rows) for face in row.faces for one in (face, *face.parts))


def metrics_of(behaviour: Behaviour) -> tuple[Metric, ...]:
    """Return the metrics of a behaviour; `link` where uplifts are fitted on another scale than they are shown on."""
    return tuple(metric for metric in METRICS if metric != "link" or behaviour.scale.words.two)


def metric_name(metric: Metric, behaviour: Behaviour) -> str:
    """Return a metric's name with its unit."""
    points = behaviour.scale.words.effect_format.unit.strip()
    return {
        "uplift": behaviour.effect_label,
        "link": f"difference, {behaviour.scale.words.link_short}",
        "mean": behaviour.mean_label,
        "width": f"interval width, {points or behaviour.unit}",
        "n": "n",
        "truncated": "truncated",
    }[metric]


def model(
    grid: GridSnapshot,
    metric: Metric,
    published: PublishedSpread | None = None,
    pinned: Sequence[CellKey] = (),
    fits: Fits | None = None,
) -> MatrixModel:
    """Return what the matrix shows of a grid under a metric, with published CVs in a column of their own."""
    pins = {(key.arm, key.generate, key.train): str(number) for number, key in enumerate(pinned, 1)}
    low, high = extremes(grid, metric, fits)
    behaviour = grid.behaviour
    rows = []
    for r, row in enumerate(grid.rows):
        faces = tuple(
            _face(cell, metric, behaviour, fits, "▾" if (r, c) == low else "▴" if (r, c) == high else "")
            for c, cell in enumerate(row.cells)
        )
        faces = tuple(
            replace(face, pinned=True) if cell is not None and cell.key in pinned else face
            for face, cell in zip(faces, row.cells, strict=True)
        )
        pin = pins.get((*grid.page, row.train), "")
        rows.append(FaceRow(sanitise.line(row.train, 60), faces, _summary(grid, row, metric, fits, published), pin))
    base_metric: Metric = "mean" if metric in CHANGES else metric
    spread = behaviour.scale.words.spread
    return MatrixModel(
        heads=tuple(_clean(head) for head in grid.heads),
        summaries=(
            "total" if metric in ("n", "truncated") else "mean",
            spread,
            f"{spread} {published.model}" if published else "",
            "train/D" if behaviour.scale.kind == "ratio" else "train−D",
        ),
        base=FaceRow(
            "base",
            tuple(_face(cell, base_metric, behaviour, fits, "", coloured=False) for cell in grid.base.cells),
            _summary(grid, grid.base, base_metric, fits, published),
        ),
        rows=tuple(rows),
        foot=_foot(grid, metric, fits) if len(rows) > 1 else None,
    )


def _foot(grid: GridSnapshot, metric: Metric, fits: Fits | None) -> FaceRow:
    """Return the mean of each column over the train conditions, or the total where counts add up."""
    behaviour, found = grid.behaviour, []
    for cells in zip(*(row.cells for row in grid.rows), strict=True):
        values = [value(cell, metric, behaviour, fits) for cell in cells if cell is not None]
        known = [one for one in values if one is not None]
        if not known or len(known) < len(values):
            found.append(Face(formats.NOTHING, kind="pending"))
        elif metric in ("n", "truncated"):
            found.append(Face(f"{sum(known):.0f}"))
        else:
            mean = sum(known) / len(known)
            form = format_of(metric, behaviour)
            level = behaviour.scale.level(mean) if metric == "uplift" else None
            cut = dagger(*(bool(cut_of(cell, metric)) for cell in cells))
            found.append(Face(form.text(mean, narrow=True), level=level, brief=form.brief(mean), dagger=cut))
    return FaceRow("total" if metric in ("n", "truncated") else "mean", tuple(found), ())


def _clean(head: ColumnHead) -> ColumnHead:
    name, band, leaf = (sanitise.line(text, 60) for text in (head.name, head.band, head.leaf))
    return ColumnHead(name, band, leaf, head.crossed)


def extremes(
    grid: GridSnapshot, metric: Metric = "uplift", fits: Fits | None = None
) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """Return where the lowest and the highest finished cell under the arm's own conditions stand, as (row, column).

    They are those of the metric; counts and widths have none.
    """
    if metric not in (*CHANGES, "mean"):
        return None, None
    known = [
        (found, (r, c))
        for r, row in enumerate(grid.rows)
        for c, cell in enumerate(row.own_cells)
        if cell is not None and (found := value(cell, metric, grid.behaviour, fits)) is not None
    ]
    if len(known) < 2:
        return None, None
    return min(known)[1], max(known)[1]


def format_of(metric: Metric, behaviour: Behaviour) -> NumberFormat:
    """Return how the numbers of a metric are written."""
    words = behaviour.scale.words
    return {"uplift": words.effect_format, "link": words.link_format}.get(metric, words.value_format)


def _face(
    cell: GridCell | None,
    metric: Metric,
    behaviour: Behaviour,
    fits: Fits | None,
    mark: str,
    *,
    coloured: bool = True,
) -> Face:
    if cell is None:
        return Face("", kind="none")
    row, summary = cell.cell, cell.summary
    if row.state == "failed":
        return Face("✗", f"failed, {row.done}/{row.total}" if row.done else "failed", kind="failed")
    if row.state in ("running", "paused") or (row.state != "done" and row.done):
        share = formats.share(row.done, row.total)
        glyph = "‖" if row.state == "paused" else _FILLING[min(3, round(share * 4))]
        kind: FaceKind = "paused" if row.state == "paused" else "live"
        return Face(f"{glyph} {share:.0%}", f"{row.done}/{row.total}", kind=kind)
    if summary is None or summary.mean is None:
        return Face(formats.NOTHING, row.state if row.state == "cancelled" else "", kind="pending")
    scale, form = behaviour.scale, behaviour.scale.words.value_format
    effect = effect_of(cell, behaviour, fits) if coloured else None
    level = scale.level(effect.value) if effect else None
    own = mean_of(cell, behaviour, fits)
    mean, interval = form.text(summary.mean, narrow=True), form.interval(own, narrow=True)
    if metric in CHANGES:
        shown, change = value(cell, metric, behaviour, fits), format_of(metric, behaviour)
        text = change.text(shown, narrow=True)
        cut = cut_of(cell, metric)
        return Face(text, f"{mean} {interval}".rstrip(), mark, level, brief=change.brief(shown), dagger=cut)
    if metric == "mean":
        brief = form.brief(summary.mean)
        return Face(mean, interval, mark, level, brief=brief, dagger=cut_of(cell, metric))
    if metric == "width":
        return Face(form.text(_width(own), narrow=True), interval, "", None, dagger=cut_of(cell, metric))
    if metric == "n":
        missing = f"{summary.missing} missing" if summary.missing else ""
        return Face(str(summary.n), missing, "!" if summary.missing else "", None)
    share = formats.share(summary.truncated, summary.n)
    return Face(str(summary.truncated), f"{share:.0%} of {summary.n}", "", min(1.0, share * 4) if share else None)


def cut_of(cell: GridCell | None, metric: Metric) -> str:
    """Return the dagger of a finished cell's number under a metric; counts of completions have none."""
    if cell is None or cell.summary is None or metric in ("n", "truncated"):
        return ""
    base = finished(cell.base) if metric in CHANGES else None
    return dagger(cell.summary.truncated, base.truncated if base else 0)


def _width(mean: Estimate | None) -> float | None:
    return None if mean is None or mean.low is None or mean.high is None else mean.high - mean.low


def value(cell: GridCell, metric: Metric, behaviour: Behaviour, fits: Fits | None = None) -> float | None:
    """Return a cell's number under a metric; None until it is done."""
    summary = cell.summary
    if summary is None:
        return None
    if metric in CHANGES:
        found = effect_of(cell, behaviour, fits, link=metric == "link")
        return found.value if found else None
    if metric == "width":
        return _width(mean_of(cell, behaviour, fits))
    if metric == "mean":
        return summary.mean
    return float(summary.n if metric == "n" else summary.truncated)


def shown_value(cell: GridCell, metric: Metric, grid: GridSnapshot, fits: Fits | None = None) -> float | None:
    """Return the number that stands in a cell: base cells show their mean where others show a change."""
    base = cell.cell.train == BASE
    return value(cell, "mean" if base and metric in CHANGES else metric, grid.behaviour, fits)


def grid_table(grid: GridSnapshot, metric: Metric, fits: Fits | None = None) -> TextTable:
    """Return a page as it is shown under a metric, numbers in full."""
    columns = (f"{head.name} (crossed)" if head.crossed else head.name for head in grid.heads)
    scale = grid.behaviour.scale
    heads = (f"{metric_name(metric, grid.behaviour)}: train \\ eval", *columns, scale.words.spread)
    rows = []
    for row in (grid.base, *grid.rows):
        values = (number(shown_value(cell, metric, grid, fits) if cell else None) for cell in row.cells)
        rows.append((row.train, *values, number(spread_in(grid, row, fits))))
    return table(heads, rows)


def _values(row: GridRow, metric: Metric, behaviour: Behaviour, fits: Fits | None) -> list[float]:
    found = [value(cell, metric, behaviour, fits) for cell in row.own_cells if cell is not None]
    return [one for one in found if one is not None]


def _summary(
    grid: GridSnapshot, row: GridRow, metric: Metric, fits: Fits | None, published: PublishedSpread | None
) -> tuple[Face, ...]:
    behaviour = grid.behaviour
    values = _values(row, metric, behaviour, fits)
    complete = len(values) == len(row.own_cells) and bool(values)
    if not complete:
        middle = Face(formats.NOTHING, kind="pending")
    elif metric in ("n", "truncated"):
        middle = Face(f"{sum(values):.0f}")
    else:
        cut = dagger(*(bool(cut_of(cell, metric)) for cell in row.own_cells))
        middle = Face(format_of(metric, behaviour).text(sum(values) / len(values), narrow=True), dagger=cut)
    words = behaviour.scale.words
    spread, surprise = spread_in(grid, row, fits), surprise_in(grid, row, fits)
    known = published.values.get(row.train) if published else None
    means = "" if spread is None else dagger(*(bool(cut_of(cell, "mean")) for cell in row.own_cells))
    in_data = "" if surprise is None else dagger(row.cut)
    return (
        middle,
        Face(words.spread_format.text(spread, narrow=True), kind="pending" if spread is None else "done", dagger=means),
        Face("" if known is None else words.spread_format.text(known, narrow=True), kind="pending"),
        Face(
            "" if surprise is None else words.surprise_format.text(surprise, narrow=True),
            kind="pending",
            dagger=in_data,
        ),
    )


def short_label(label: str, width: int) -> str:
    """Return a condition's name within `width` columns: `very_long` becomes `v_long`, `no_prefix` `none`."""
    if len(label) <= width:
        return label
    if label == "no_prefix":
        return "none"
    head, *rest = label.split("_")
    if rest:
        short = "_".join([head[:1], *rest])
        if len(short) <= width:
            return short
    return label[: max(1, width - 1)] + "…"


def labels(names: Sequence[str], width: int) -> list[str]:
    """Return column labels that fit, left as they are where two would come out the same."""
    short = [short_label(name, width) for name in names]
    if len(set(short)) == len(set(names)):
        return short
    keep = max(1, width - 3)
    return [name if len(name) <= width else f"{name[:keep]}…{number}" for number, name in enumerate(names)]


def column_labels(heads: Sequence[ColumnHead], width: int) -> list[str]:
    """Return the labels of columns: what the band over them does not say."""
    found: dict[str, str] = {}
    for group in dict.fromkeys((head.band, head.crossed) for head in heads):
        own = [head for head in heads if (head.band, head.crossed) == group]
        found.update(zip((head.name for head in own), labels([head.leaf for head in own], width), strict=True))
    return [found[head.name] for head in heads]
