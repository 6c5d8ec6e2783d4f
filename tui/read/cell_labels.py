"""What a cell of the grid looks like: its number, its sign, its colour, for each metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from windowshift.core.contract.records import BASE, Behaviour
from windowshift.tui.read.column_heads import ColumnHead
from windowshift.tui.read.snapshot import CellKey, GridCell, GridRow, GridSnapshot
from windowshift.tui.text import formats, sanitise
from windowshift.tui.text.table import Table, number, table

if TYPE_CHECKING:
    from windowshift.core.settings.published import PublishedSpread

Metric = Literal["uplift", "mean", "width", "n", "truncated"]
METRICS: tuple[Metric, ...] = ("uplift", "mean", "width", "n", "truncated")
Kind = Literal["done", "live", "pending", "paused", "failed", "none"]

_FILLING = "○◔◑◕"


@dataclass(frozen=True, slots=True)
class Face:
    """A cell as drawn: `level` within -1 .. 1 is its colour, 0 no change, None uncoloured."""

    text: str
    detail: str = ""
    mark: str = ""
    level: float | None = None
    kind: Kind = "done"
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class FaceRow:
    """A row as drawn; `pin` is the number under which it is pinned, or nothing."""

    label: str
    faces: tuple[Face, ...]
    summary: tuple[Face, ...]
    pin: str = ""


@dataclass(frozen=True, slots=True)
class MatrixModel:
    """All that the matrix draws; two models compare cell by cell. `foot` sums the columns up, or is nothing."""

    heads: tuple[ColumnHead, ...]
    summaries: tuple[str, ...]
    base: FaceRow
    rows: tuple[FaceRow, ...]
    foot: FaceRow | None = None

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


def metric_name(metric: Metric, behaviour: Behaviour) -> str:
    """Return a metric's name with its unit."""
    if metric == "uplift":
        return "uplift log2" if behaviour.scale.kind == "ratio" else f"difference, {behaviour.unit}"
    return {
        "mean": f"mean {behaviour.unit}",
        "width": f"interval width, {behaviour.unit}",
        "n": "n",
        "truncated": "truncated",
    }[metric]


def model(
    grid: GridSnapshot,
    metric: Metric,
    published: PublishedSpread | None = None,
    pinned: Sequence[CellKey] = (),
) -> MatrixModel:
    """Return what the matrix shows of a grid under a metric, with published CVs in a column of their own."""
    pins = {(key.arm, key.generate, key.train): str(number) for number, key in enumerate(pinned, 1)}
    low, high = extremes(grid)
    compare = grid.behaviour.scale.kind
    rows = []
    for r, row in enumerate(grid.rows):
        faces = tuple(
            _face(cell, metric, compare, "▾" if (r, c) == low else "▴" if (r, c) == high else "")
            for c, cell in enumerate(row.cells)
        )
        faces = tuple(
            replace(face, pinned=True) if cell is not None and cell.key in pinned else face
            for face, cell in zip(faces, row.cells, strict=True)
        )
        pin = pins.get((*grid.page, row.train), "")
        rows.append(FaceRow(sanitise.line(row.train, 60), faces, _summary(row, metric, compare, published), pin))
    base_metric: Metric = "mean" if metric == "uplift" else metric
    return MatrixModel(
        heads=tuple(_clean(head) for head in grid.heads),
        summaries=(
            "total" if metric in ("n", "truncated") else "mean",
            "CV",
            f"CV {published.model}" if published else "",
            "train/D",
        ),
        base=FaceRow(
            "base",
            tuple(_face(cell, base_metric, compare, "", coloured=False) for cell in grid.base.cells),
            _summary(grid.base, base_metric, compare, published),
        ),
        rows=tuple(rows),
        foot=_foot(grid, metric) if len(rows) > 1 else None,
    )


def _foot(grid: GridSnapshot, metric: Metric) -> FaceRow:
    """Return the mean of each column over the train conditions, or the total where counts add up."""
    compare, found = grid.behaviour.scale.kind, []
    for cells in zip(*(row.cells for row in grid.rows), strict=True):
        values = [value(cell, metric, compare) for cell in cells if cell is not None]
        known = [one for one in values if one is not None]
        if not known or len(known) < len(values):
            found.append(Face(formats.NOTHING, kind="pending"))
        elif metric in ("n", "truncated"):
            found.append(Face(f"{sum(known):.0f}"))
        else:
            mean = sum(known) / len(known)
            changes = metric == "uplift"
            text = formats.signed(mean) if changes else formats.plain(mean)
            found.append(Face(text, level=max(-1.0, min(1.0, mean)) if changes else None))
    return FaceRow("total" if metric in ("n", "truncated") else "mean", tuple(found), ())


def _clean(head: ColumnHead) -> ColumnHead:
    name, band, leaf = (sanitise.line(text, 60) for text in (head.name, head.band, head.leaf))
    return ColumnHead(name, band, leaf, head.crossed)


def extremes(grid: GridSnapshot) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """Return where the lowest and the highest change under the arm's own conditions stand, as (row, column)."""
    known = [
        (change, (r, c))
        for r, row in enumerate(grid.rows)
        for c, cell in enumerate(row.own_cells)
        if cell is not None and (change := cell.change(grid.behaviour.scale.kind)) is not None
    ]
    if len(known) < 2:
        return None, None
    return min(known)[1], max(known)[1]


def _face(cell: GridCell | None, metric: Metric, compare: str, mark: str, *, coloured: bool = True) -> Face:
    if cell is None:
        return Face("", kind="none")
    row, summary = cell.cell, cell.cell.summary
    if row.state == "failed" and summary is None:
        return Face("✗", "failed", kind="failed")
    if row.state in ("running", "paused") or (row.state != "done" and row.done and summary is None):
        share = formats.share(row.done, row.total)
        glyph = "‖" if row.state == "paused" else _FILLING[min(3, round(share * 4))]
        kind: Kind = "paused" if row.state == "paused" else "live"
        return Face(f"{glyph} {share:.0%}", f"{row.done}/{row.total}", kind=kind)
    if summary is None or summary.mean is None:
        return Face(formats.NOTHING, row.state if row.state == "cancelled" else "", kind="pending")
    change = cell.change(compare) if coloured else None
    level = None if change is None else max(-1.0, min(1.0, change))
    interval = formats.interval(summary.low, summary.high)
    if metric == "uplift":
        text = formats.signed(change) if coloured else formats.plain(summary.mean)
        return Face(text, f"{formats.plain(summary.mean)} {interval}", mark, level)
    if metric == "mean":
        return Face(formats.plain(summary.mean), interval, mark, level)
    if metric == "width":
        return Face(formats.plain(_width(cell)), interval, "", None)
    if metric == "n":
        missing = f"{summary.missing} missing" if summary.missing else ""
        return Face(str(summary.n), missing, "!" if summary.missing else "", None)
    share = formats.share(summary.truncated, summary.n)
    return Face(str(summary.truncated), f"{share:.0%} of {summary.n}", "", min(1.0, share * 4) if share else None)


def _width(cell: GridCell) -> float | None:
    summary = cell.cell.summary
    if summary is None or summary.low is None or summary.high is None:
        return None
    return summary.high - summary.low


def value(cell: GridCell, metric: Metric, compare: str) -> float | None:
    """Return a cell's number under a metric; None until it has one."""
    summary = cell.cell.summary
    if summary is None:
        return None
    if metric == "uplift":
        return cell.change(compare)
    if metric == "width":
        return _width(cell)
    return {"mean": summary.mean, "n": float(summary.n), "truncated": float(summary.truncated)}[metric]


def shown_value(cell: GridCell, metric: Metric, grid: GridSnapshot) -> float | None:
    """Return the number that stands in a cell: base cells show their mean where others show a change."""
    base = cell.cell.train == BASE
    return value(cell, "mean" if base and metric == "uplift" else metric, grid.behaviour.scale.kind)


def grid_table(grid: GridSnapshot, metric: Metric) -> Table:
    """Return a page as it is shown under a metric, numbers in full."""
    columns = (f"{head.name} (crossed)" if head.crossed else head.name for head in grid.heads)
    heads = (f"{metric_name(metric, grid.behaviour)}: train \\ eval", *columns, "CV")
    rows = []
    for row in (grid.base, *grid.rows):
        values = (number(shown_value(cell, metric, grid) if cell else None) for cell in row.cells)
        rows.append((row.train, *values, number(coefficient(row))))
    return table(heads, rows)


def _values(row: GridRow, metric: Metric, compare: str) -> list[float]:
    found = [value(cell, metric, compare) for cell in row.own_cells if cell is not None]
    return [one for one in found if one is not None]


def coefficient(row: GridRow) -> float | None:
    """Return CV: standard deviation over mean of the mean scores across the arm's own eval conditions.

    None until every one of them has a mean: over fewer it is another number.
    """
    means = [cell.mean for cell in row.own_cells if cell is not None]
    known = [mean for mean in means if mean is not None]
    if len(known) < 2 or len(known) < len(row.own_cells):
        return None
    # By hand: the statistics module is exact, and thirty times slower.
    mean = sum(known) / len(known)
    return math.sqrt(sum((one - mean) ** 2 for one in known) / len(known)) / mean if mean else None


def _summary(row: GridRow, metric: Metric, compare: str, published: PublishedSpread | None) -> tuple[Face, ...]:
    values = _values(row, metric, compare)
    complete = len(values) == len(row.own_cells) and bool(values)
    if not complete:
        middle = Face(formats.NOTHING, kind="pending")
    elif metric in ("n", "truncated"):
        middle = Face(f"{sum(values):.0f}")
    else:
        mean = sum(values) / len(values)
        middle = Face(formats.signed(mean) if metric == "uplift" else formats.plain(mean))
    cv = coefficient(row)
    ratio = row.ratio
    known = published.values.get(row.train) if published else None
    return (
        middle,
        Face(formats.NOTHING, kind="pending") if cv is None else Face(f"{cv:.2f}".removeprefix("0")),
        Face("" if known is None else f"{known:.2f}".removeprefix("0"), kind="pending"),
        Face("" if ratio is None else f"×{ratio:.2f}", kind="pending"),
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
