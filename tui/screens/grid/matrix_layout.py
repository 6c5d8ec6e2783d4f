"""How the grid fills the room that it has."""

from __future__ import annotations

from dataclasses import dataclass

from windowshift.tui.read.cell_labels import MatrixModel

FOLD = 2
"""Columns of screen between the arm's own conditions and the other arm's."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are: widths in columns, heights in rows, how many cells are on screen, lines of head and foot."""

    label: int
    cell: int
    summaries: tuple[int, ...]
    fill: int
    gap: int
    columns: int
    rows: int
    head: int
    foot: int

    @property
    def height(self) -> int:
        """Rows of screen that a grid row takes."""
        return self.fill + self.gap


def layout_of(model: MatrixModel, width: int, height: int) -> Layout:
    """Return the airiest layout of a model that fits; where none does, the grid scrolls."""
    count = max(1, len(model.columns))
    longest = max([len("base"), *(len(row.label) for row in model.rows)])
    label = min(longest + 1, max(10, width // 4))
    wide = width >= 110
    summaries = (8, 6, 12, 8) if wide else (7, 5) if width >= 56 else (7,)
    head = 1 + model.banded
    room = width - label - 2 - sum(summaries) - FOLD * (0 < model.own < len(model.columns))
    cell = max(7, min(20, room // count))
    rows = max(1, len(model.rows))
    # Five rows of a long grid are worth more than what sums them up.
    foot = int(model.foot is not None and height >= head + 4 + min(rows, 5))
    for fill, gap in ((2, 1), (2, 0), (1, 0)) if cell >= 15 else ((1, 1), (1, 0)):
        if head + 2 + foot + (rows + 1) * (fill + gap) <= height:
            break
    fixed = head + 2 + foot + fill + gap
    return Layout(
        label,
        cell,
        summaries,
        fill,
        gap,
        columns=max(1, min(count, room // cell)),
        rows=max(1, min(rows, (height - fixed) // (fill + gap))),
        head=head,
        foot=foot,
    )
