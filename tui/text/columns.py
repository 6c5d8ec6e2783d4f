"""Columns of a drawn list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.style import Style

from windowshift.tui.text.pieces import Piece, Pieces, fit, length

LEAST = 16
"""Columns of screen that a name takes to be told from others."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column; `width` 0 takes what the others leave, at least `LEAST`, `above` hides it on narrower screens."""

    title: str
    width: int
    align: str = "left"
    above: int = 0


def widths(columns: Sequence[Column], width: int) -> list[int]:
    """Return each column's width on a screen; 0 for hidden ones.

    Where the growing columns would get less than `LEAST`, others that need not be there on every screen give way:
    those first that need the widest screen, of equal ones the last.
    """
    found = [column.width if width >= column.above else -1 for column in columns]
    growing = sum(size == 0 for size in found)
    while True:
        gaps = sum(size >= 0 for size in found) + 1
        room = width - gaps - sum(size for size in found if size > 0)
        less = [number for number, column in enumerate(columns) if found[number] > 0 and column.above]
        if not growing or room // growing >= LEAST or not less:
            break
        found[max(less, key=lambda number: (columns[number].above, number))] = -1
    return [max(4, room // growing) if size == 0 else max(0, size) for size in found]


def fitted(columns: Sequence[Column], longest: Sequence[int]) -> tuple[Column, ...]:
    """Return columns no wider than what stands in them: what they leave is for the growing ones."""
    return tuple(
        replace(column, width=min(column.width, max(len(column.title), size))) if column.width else column
        for column, size in zip(columns, longest, strict=True)
    )


def header(columns: Sequence[Column], width: int, style: Style) -> Pieces:
    """Return the header line."""
    shown = [(fit(c.title, w, c.align), style) for c, w in zip(columns, widths(columns, width), strict=True) if w]
    return _joined([[piece] for piece in shown])


def row(columns: Sequence[Column], width: int, values: Sequence[Piece | Pieces]) -> Pieces:
    """Return a row: a piece is cut to its column, pieces are taken as they are and padded."""
    fields: list[Pieces] = []
    for column, size, value in zip(columns, widths(columns, width), values, strict=True):
        if not size:
            continue
        if isinstance(value, tuple):
            fields.append([(fit(value[0], size, column.align), value[1])])
        else:
            fields.append([*value, (" " * max(0, size - length(value)), Style())])
    return _joined(fields)


def _joined(fields: Sequence[Pieces]) -> Pieces:
    pieces: Pieces = [(" ", Style())]
    for field in fields:
        pieces += [*field, (" ", Style())]
    return pieces
