"""The grid as an own widget: draws itself line by line and repaints only cells that changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.geometry import Region, Size
from textual.message import Message
from textual.strip import Strip

from windowshift.tui.read.cell_labels import FaceRow, MatrixModel
from windowshift.tui.read.snapshot import BASE_ROW
from windowshift.tui.screens.grid.matrix_view import Layout, MatrixLines, MatrixView, layout_of
from windowshift.tui.widgets.inked import Drawn, few_colours, ink_of

_EMPTY = MatrixModel((), (), FaceRow("base", (), ()), ())


class Matrix(Drawn, can_focus=True, inherit_bindings=False):
    """Train conditions as rows, eval conditions as columns, the base row on top and apart."""

    DEFAULT_CSS = "Matrix { height: auto; }"

    AROUND: ClassVar[tuple[tuple[int, int], ...]] = ((46, 25), (32, 14), (18, 10), (0, 7))
    """Rows of screen that the lines around the matrix take, on a screen of so many rows or more."""

    @dataclass
    class Moved(Message):
        """The cursor stands on another cell."""

        row: int
        column: int

        def can_replace(self, message: Message) -> bool:
            """Collapse a burst."""
            return isinstance(message, Matrix.Moved)

    class Opened(Message):
        """A cell was clicked that had the cursor already."""

    def __init__(self) -> None:
        super().__init__()
        self.model = _EMPTY
        self.row = 0
        self.column = 0
        self._top = 0
        self._left = 0
        self.painted_cells = 0

    # -- what it shows --------------------------------------------------------------------------

    def show(self, model: MatrixModel) -> None:
        """Show a model; where only cells differ from the one before, only they are repainted."""
        old, self.model = self.model, model
        if _shape(model) != _shape(old):
            self._clamp()
            self.refresh(layout=True)
            return
        before, after = [old.base, *old.rows], [model.base, *model.rows]
        for number, (was, now) in enumerate(zip(before, after, strict=True)):
            if was == now:
                continue
            for column, (a, b) in enumerate(zip(was.faces, now.faces, strict=True)):
                if a != b:
                    self._repaint(self.cell_region(number - 1, column))
            if was.pin != now.pin:
                x, y, _, height = self.cell_region(number - 1, self._left)
                self._repaint(Region(0, y, max(0, x - 1), height))
            if was.summary != now.summary:
                self._repaint(self.view().summary_region(number - 1))
        if model.foot is not None and old.foot is not None and model.foot != old.foot:
            for column, (a, b) in enumerate(zip(old.foot.faces, model.foot.faces, strict=True)):
                if a != b:
                    x, _, width, _ = self.cell_region(self._top, column)
                    self.refresh(Region(x, self.size.height - 1, width, 1))

    def _repaint(self, region: Region) -> None:
        if region.area:
            self.painted_cells += 1
            self.refresh(region)

    # -- cursor ---------------------------------------------------------------------------------

    def move(self, row: int, column: int) -> None:
        """Put the cursor on a cell; row -1 is the base row."""
        before = (self.row, self.column, self._top, self._left)
        self.row, self.column = row, column
        self._clamp()
        if (self._top, self._left) != before[2:]:
            self.refresh()
        elif (self.row, self.column) != before[:2]:
            view = self.view()
            for cell in (before[:2], (self.row, self.column)):
                self.refresh(self.cell_region(*cell))
                y = view.row_y(cell[0])
                if y is not None:
                    self.refresh(Region(0, y, view.layout.label, view.layout.fill))
            self.refresh(Region(0, 0, self.size.width, view.layout.head))
        if (self.row, self.column) != before[:2]:
            self.post_message(self.Moved(self.row, self.column))

    def _clamp(self) -> None:
        layout = self.layout_now()
        self.column = max(0, min(self.column, len(self.model.columns) - 1))
        if self.model.rows:
            self.row = max(BASE_ROW, min(self.row, len(self.model.rows) - 1))
        last_left = max(0, len(self.model.columns) - layout.columns)
        last_top = max(0, len(self.model.rows) - layout.rows)
        self._left = min(last_left, max(min(self._left, self.column), self.column - layout.columns + 1))
        if self.row >= 0:
            self._top = min(self._top, self.row)
            self._top = max(self._top, self.row - layout.rows + 1)
        self._top = max(0, min(self._top, last_top))

    def on_resize(self) -> None:
        """Keep the cursor on screen."""
        self._clamp()
        self.refresh()

    def on_focus(self) -> None:
        """Draw the cursor."""
        self.refresh(self.cell_region(self.row, self.column))

    def on_click(self, event: events.Click) -> None:
        """Move the cursor to the cell, or open the one that has it."""
        found = self.view().cell_at(event.x, event.y)
        if found is None:
            return
        if found == (self.row, self.column):
            self.post_message(self.Opened())
        else:
            self.move(*found)

    # -- geometry -------------------------------------------------------------------------------

    def layout_now(self) -> Layout:
        """Return the layout for the present size and model."""
        return layout_of(self.model, *self.size)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:  # noqa: ARG002 - Textual's
        """Return the rows that the airiest layout takes which leaves room for the lines below."""
        room = max(6, viewport.height - next(taken for rows, taken in self.AROUND if viewport.height >= rows))
        layout = layout_of(self.model, width, room)
        return layout.head + 2 + layout.foot + layout.height * (layout.rows + 1)

    def view(self) -> MatrixView:
        """Return what is on screen now."""
        return MatrixView(self.model, self.layout_now(), self.row, self.column, self._top, self._left)

    def cell_region(self, row: int, column: int) -> Region:
        """Return where a cell is drawn; empty where it is scrolled away."""
        return self.view().cell_region(row, column)

    def render_line(self, y: int) -> Strip:
        """Draw one line."""
        if not self.model.columns:
            return self.drawn([])
        return self.drawn(MatrixLines(self.view(), ink_of(self), few_colours(self)).line(y))


def _shape(model: MatrixModel) -> tuple[object, ...]:
    return model.heads, model.summaries, [row.label for row in model.rows], model.foot is None
