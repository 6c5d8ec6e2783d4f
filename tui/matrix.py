"""The grid as an own widget: draws itself line by line and repaints only cells that changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rich.style import Style
from textual import events
from textual.geometry import Region, Size
from textual.message import Message
from textual.strip import Strip

from windowshift.tui.drawn import Drawn, few_colours, ink_of
from windowshift.tui.faces import Face, FaceRow, MatrixModel, column_labels
from windowshift.tui.matrix_layout import FOLD, Layout, layout_of
from windowshift.tui.pieces import Pieces, fit
from windowshift.tui.theme import scale, step_of

BASE_ROW = -1
_EMPTY = MatrixModel((), (), FaceRow("base", (), ()), ())


class Matrix(Drawn, can_focus=True, inherit_bindings=False):
    """Train conditions as rows, eval conditions as columns, the base row on top and apart."""

    DEFAULT_CSS = "Matrix { height: auto; }"

    AROUND: ClassVar[tuple[tuple[int, int], ...]] = ((46, 25), (32, 14), (18, 9), (0, 6))
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
                self._repaint(self._summary_region(number - 1))
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
            layout = self.layout_now()
            for cell in (before[:2], (self.row, self.column)):
                self.refresh(self.cell_region(*cell))
                y = self._row_y(cell[0], layout)
                if y is not None:
                    self.refresh(Region(0, y, layout.label, layout.fill))
            self.refresh(Region(0, 0, self.size.width, layout.head))
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
        found = self._cell_at(event.x, event.y)
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

    def _row_y(self, row: int, layout: Layout) -> int | None:
        if row == BASE_ROW:
            return layout.head
        place = row - self._top
        return layout.head + 1 + layout.height * (place + 1) if 0 <= place < layout.rows else None

    def _fold(self, layout: Layout) -> int | None:
        """The first column of the other arm, where some of the own stand before it on screen."""
        own = self.model.own
        return own if self._left < own < min(len(self.model.columns), self._left + layout.columns) else None

    def _x(self, column: int, layout: Layout) -> int:
        fold = self._fold(layout)
        after = FOLD if fold is not None and column >= fold else 0
        return layout.label + 1 + (column - self._left) * layout.cell + after

    def cell_region(self, row: int, column: int) -> Region:
        """Return where a cell is drawn; empty where it is scrolled away."""
        layout = self.layout_now()
        y, place = self._row_y(row, layout), column - self._left
        if y is None or not 0 <= place < layout.columns:
            return Region()
        return Region(self._x(column, layout), y, layout.cell, layout.fill)

    def _summary_region(self, row: int) -> Region:
        layout = self.layout_now()
        y = self._row_y(row, layout)
        if y is None:
            return Region()
        start = self._x(self._left + layout.columns, layout) + 1
        return Region(start, y, sum(layout.summaries), layout.fill)

    def _cell_at(self, x: int, y: int) -> tuple[int, int] | None:
        layout = self.layout_now()
        column = next((c for c in self._window(layout) if 0 <= x - self._x(c, layout) < layout.cell), None)
        if column is None:
            return None
        for row in (BASE_ROW, *range(self._top, self._top + layout.rows)):
            top = self._row_y(row, layout)
            if top is not None and top <= y < top + layout.height:
                return row, column
        return None

    # -- drawing --------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        """Draw one line."""
        layout = self.layout_now()
        if not self.model.columns:
            return self.drawn([])
        head, bottom = layout.head, layout.head + 1 + layout.height * (layout.rows + 1)
        if y < head - 1:
            pieces = self._bands(layout)
        elif y < head:
            pieces = self._header(layout)
        elif y == head + layout.height:
            pieces = self._rule(layout, "┼", self._top > 0, "▴")
        elif y == bottom:
            pieces = self._rule(layout, "┴", self._top + layout.rows < len(self.model.rows), "▾")
        elif y < bottom:
            row, inner = (
                (BASE_ROW, y - head)
                if y < head + layout.height
                else (self._top + (y - head - 1) // layout.height - 1, (y - head - 1) % layout.height)
            )
            pieces = self._row(layout, row, inner)
        else:
            pieces = self._foot(layout) if layout.foot else []
        return self.drawn(pieces)

    def _window(self, layout: Layout) -> range:
        return range(self._left, min(len(self.model.columns), self._left + layout.columns))

    def _bands(self, layout: Layout) -> Pieces:
        """The line over the heads: what neighbours share, drawn over as many of them as there are."""
        colours, fold = ink_of(self), self._fold(layout)
        pieces: Pieces = [(" " * layout.label + "│", colours.faint)]
        window = self._window(layout)
        runs: list[tuple[str, int]] = []
        for column in window:
            band = self.model.heads[column].band
            if runs and band == runs[-1][0] and column != fold:
                runs[-1] = (band, runs[-1][1] + 1)
            else:
                runs.append((band, 1))
        done = window.start
        for band, count in runs:
            if done == fold:
                pieces.append(("┊ ", colours.faint))
            width = layout.cell * count
            crossed = self.model.heads[done].crossed
            text = fit(f" {band} ", min(width - 1, len(band) + 2)) if band else ""
            rest = max(0, width - 1 - len(text))
            sides = ("─" if band else " ") * (rest // 2), ("─" if band else " ") * (rest - rest // 2)
            pieces += [
                (sides[0], colours.faint),
                (text, colours.dim if crossed else colours.blue),
                (f"{sides[1]} ", colours.faint),
            ]
            done += count
        return [*pieces, ("│", colours.faint)]

    def _header(self, layout: Layout) -> Pieces:
        colours = ink_of(self)
        before = "◂" if self._left else " "
        after = "▸" if self._left + layout.columns < len(self.model.columns) else "│"
        corner = " train ↓ eval →" if layout.label > 14 else " train↓"
        names, fold = column_labels(self.model.heads, layout.cell - 1), self._fold(layout)
        pieces: Pieces = [(fit(corner, layout.label), colours.faint), ("│" if before == " " else before, colours.faint)]
        for column in self._window(layout):
            if column == fold:
                pieces.append(("┊ ", colours.faint))
            style = colours.strong if column == self.column else colours.dim
            if self.model.heads[column].crossed:
                style += Style(italic=True)
            pieces.append((fit(names[column], layout.cell - 1, "center") + " ", style))
        pieces.append((after, colours.faint))
        for name, width in zip(self.model.summaries, layout.summaries, strict=False):
            pieces.append((fit(name, width - 1, "right") + " ", colours.dim))
        return pieces

    def _rule(self, layout: Layout, cross: str, more: bool, arrow: str) -> Pieces:
        colours = ink_of(self)
        label = "─" * (layout.label - 2) + (arrow if more else "─") + "─"
        inner = self._x(self._window(layout).stop, layout) - layout.label - 1
        return [(label + cross + "─" * inner + cross + "─" * sum(layout.summaries), colours.faint)]

    def _row(self, layout: Layout, row: int, inner: int) -> Pieces:
        colours = ink_of(self)
        shown = self.model.base if row == BASE_ROW else self.model.rows[row]
        window, fold = self._window(layout), self._fold(layout)
        if inner >= layout.fill:
            empty = " " * (layout.cell * len(window))
            if fold is not None:
                before = layout.cell * (fold - window.start)
                empty = f"{empty[:before]}┊ {empty[before:]}"
            return [(" " * layout.label + "│" + empty + "│", colours.faint)]
        first = inner == 0
        style = colours.strong if row == self.row else colours.text
        label = fit(shown.label, layout.label - 1) if first else " " * (layout.label - 1)
        pin = (shown.pin or " ") if first else " "
        pieces: Pieces = [(pin, colours.accent), (label, style), ("│", colours.faint)]
        for column in window:
            if column == fold:
                pieces.append(("┊ ", colours.faint))
            face = shown.faces[column]
            here = (row, column) == (self.row, self.column)
            width = layout.cell - 1
            text = self._number(face) if first else _detail(face.detail, width)
            style = self._style(face, here, first)
            # A pinned cell is underlined: a sign that needs no colour and no room.
            pieces.append(
                (fit(text, width, "center"), style + Style(underline=True) if face.pinned and first else style)
            )
            pieces.append((" ", colours.text))
        pieces.append(("│", colours.faint))
        for face, width in zip(shown.summary, layout.summaries, strict=False):
            text = face.text if first else face.detail
            style = colours.text if first and face.kind == "done" else colours.dim
            pieces.append((fit(text, width - 1, "right") + " ", style))
        return pieces

    def _foot(self, layout: Layout) -> Pieces:
        colours, foot = ink_of(self), self.model.foot
        if foot is None:
            return []
        fold = self._fold(layout)
        pieces: Pieces = [(fit(f" {foot.label}", layout.label), colours.dim), ("│", colours.faint)]
        for column in self._window(layout):
            if column == fold:
                pieces.append(("┊ ", colours.faint))
            face = foot.faces[column]
            pieces += [
                (fit(self._number(face), layout.cell - 1, "center"), self._style(face, here=False, first=True)),
                (" ", colours.text),
            ]
        return [*pieces, ("│", colours.faint)]

    def _number(self, face: Face) -> str:
        if face.kind != "done":
            return face.text
        return f"{face.text:>5}{face.mark or ' '}"

    def _style(self, face: Face, here: bool, first: bool) -> Style:
        colours = ink_of(self)
        if here:
            return colours.cursor if first else colours.cursor + Style(bold=False)
        if face.kind == "done":
            if face.level is None:
                return colours.text if first else colours.dim
            style = scale(step_of(face.level), colours.dark, few_colours(self))
            return style + Style(bold=bool(face.mark)) if first else style
        return {"live": colours.blue, "paused": colours.warn, "failed": colours.bad}.get(face.kind, colours.faint)


def _shape(model: MatrixModel) -> tuple[object, ...]:
    return model.heads, model.summaries, [row.label for row in model.rows], model.foot is None


def _detail(text: str, width: int) -> str:
    """Return a cell's second line with air at both ends, or its first number alone."""
    return text if len(text) <= width - 1 else text.split(" ")[0]
