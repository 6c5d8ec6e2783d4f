"""What of the grid is on screen: where its rows and columns stand, for one size, scroll place and cursor."""

from __future__ import annotations

from dataclasses import dataclass

from textual.geometry import Region

from windowshift.tui.read.cell_labels import MatrixModel
from windowshift.tui.screens.grid.matrix_layout import FOLD, Layout

BASE_ROW = -1


@dataclass(frozen=True, slots=True)
class MatrixView:
    """A model in a layout; the cursor stands at `row` and `column`, scrolling began at `top` and `left`."""

    model: MatrixModel
    layout: Layout
    row: int
    column: int
    top: int
    left: int

    @property
    def window(self) -> range:
        """The columns on screen."""
        return range(self.left, min(len(self.model.columns), self.left + self.layout.columns))

    @property
    def fold(self) -> int | None:
        """The first column of the other arm, where some of the own stand before it on screen."""
        own = self.model.own
        return own if self.left < own < self.window.stop else None

    def row_y(self, row: int) -> int | None:
        """The first line of a row; None where it is scrolled away."""
        if row == BASE_ROW:
            return self.layout.head
        place = row - self.top
        if not 0 <= place < self.layout.rows:
            return None
        return self.layout.head + 1 + self.layout.height * (place + 1)

    def x(self, column: int) -> int:
        """Where a column begins."""
        after = FOLD if self.fold is not None and column >= self.fold else 0
        return self.layout.label + 1 + (column - self.left) * self.layout.cell + after

    def cell_region(self, row: int, column: int) -> Region:
        """Where a cell is drawn; empty where it is scrolled away."""
        y = self.row_y(row)
        if y is None or not 0 <= column - self.left < self.layout.columns:
            return Region()
        return Region(self.x(column), y, self.layout.cell, self.layout.fill)

    def summary_region(self, row: int) -> Region:
        """Where the numbers behind a row are drawn; empty where it is scrolled away."""
        y = self.row_y(row)
        if y is None:
            return Region()
        start = self.x(self.left + self.layout.columns) + 1
        return Region(start, y, sum(self.layout.summaries), self.layout.fill)

    def cell_at(self, x: int, y: int) -> tuple[int, int] | None:
        """The cell at a place on screen, as row and column."""
        column = next((c for c in self.window if 0 <= x - self.x(c) < self.layout.cell), None)
        if column is None:
            return None
        for row in (BASE_ROW, *range(self.top, self.top + self.layout.rows)):
            first = self.row_y(row)
            if first is not None and first <= y < first + self.layout.height:
                return row, column
        return None
