"""What of the grid is on screen: how it fills the room that it has, where rows and columns stand, and its lines."""

from __future__ import annotations

from dataclasses import dataclass

from rich.style import Style
from textual.geometry import Region

from windowshift.tui.read.cell_labels import Face, MatrixModel, column_labels
from windowshift.tui.read.snapshot import BASE_ROW
from windowshift.tui.text.pieces import Pieces, fit
from windowshift.tui.text.share_bar import bar
from windowshift.tui.text.theme import Ink, scale, step_of

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
    summaries: tuple[int, ...] = (8, 6, 12, 8) if wide else (7, 5) if width >= 56 else (7,)
    if not model.summaries:
        summaries = ()
    head = 1 + model.banded
    room = width - label - 2 - sum(summaries) - FOLD * (0 < model.own < len(model.columns))
    cell = max(model.least, min(max(20, 2 * model.least), room // count))
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


@dataclass(frozen=True, slots=True)
class MatrixLines:
    """Draws what a view shows."""

    view: MatrixView
    ink: Ink
    few_colours: bool

    def line(self, y: int) -> Pieces:
        """Draw one line of the widget."""
        view, layout = self.view, self.view.layout
        head, bottom = layout.head, layout.head + 1 + layout.height * (layout.rows + 1)
        if y < head - 1:
            pieces = self._bands()
        elif y < head:
            pieces = self._header()
        elif y == head + layout.height:
            pieces = self._rule("┼", view.top > 0, "▴")
        elif y == bottom:
            pieces = self._rule("┴", view.top + layout.rows < len(view.model.rows), "▾")
        elif y < bottom:
            row, inner = (
                (BASE_ROW, y - head)
                if y < head + layout.height
                else (view.top + (y - head - 1) // layout.height - 1, (y - head - 1) % layout.height)
            )
            pieces = self._row(row, inner)
        else:
            pieces = self._foot() if layout.foot else []
        return pieces

    def _bands(self) -> Pieces:
        """The line over the heads: what neighbours share, drawn over as many of them as there are."""
        colours, fold = self.ink, self.view.fold
        pieces: Pieces = [(" " * self.view.layout.label + "│", colours.faint)]
        window = self.view.window
        runs: list[tuple[str, int]] = []
        for column in window:
            band = self.view.model.heads[column].band
            if runs and band == runs[-1][0] and column != fold:
                runs[-1] = (band, runs[-1][1] + 1)
            else:
                runs.append((band, 1))
        done = window.start
        for band, count in runs:
            if done == fold:
                pieces.append(("┊ ", colours.faint))
            width = self.view.layout.cell * count
            crossed = self.view.model.heads[done].crossed
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

    def _header(self) -> Pieces:
        colours = self.ink
        before = "◂" if self.view.left else " "
        after = "▸" if self.view.left + self.view.layout.columns < len(self.view.model.columns) else "│"
        corner = " train ↓ eval →" if self.view.layout.label > 14 else " train↓"
        names, fold = column_labels(self.view.model.heads, self.view.layout.cell - 1), self.view.fold
        edge = "│" if before == " " else before
        pieces: Pieces = [(fit(corner, self.view.layout.label) + edge, colours.faint)]
        for column in self.view.window:
            if column == fold:
                pieces.append(("┊ ", colours.faint))
            style = colours.strong if column == self.view.column else colours.dim
            if self.view.model.heads[column].crossed:
                style += Style(italic=True)
            pieces.append((fit(names[column], self.view.layout.cell - 1, "center") + " ", style))
        pieces.append((after, colours.faint))
        for name, width in zip(self.view.model.summaries, self.view.layout.summaries, strict=False):
            pieces.append((fit(name, width - 1, "right") + " ", colours.dim))
        return pieces

    def _rule(self, cross: str, more: bool, arrow: str) -> Pieces:
        colours = self.ink
        label = "─" * (self.view.layout.label - 2) + (arrow if more else "─") + "─"
        inner = self.view.x(self.view.window.stop) - self.view.layout.label - 1
        return [(label + cross + "─" * inner + cross + "─" * sum(self.view.layout.summaries), colours.faint)]

    def _row(self, row: int, inner: int) -> Pieces:
        colours = self.ink
        shown = self.view.model.base if row == BASE_ROW else self.view.model.rows[row]
        window, fold = self.view.window, self.view.fold
        if inner >= self.view.layout.fill:
            empty = " " * (self.view.layout.cell * len(window))
            if fold is not None:
                before = self.view.layout.cell * (fold - window.start)
                empty = f"{empty[:before]}┊ {empty[before:]}"
            return [(" " * self.view.layout.label + "│" + empty + "│", colours.faint)]
        first = inner == 0
        style = colours.strong if row == self.view.row else colours.text
        label = fit(shown.label, self.view.layout.label - 1) if first else " " * (self.view.layout.label - 1)
        pin = (shown.pin or " ") if first else " "
        pieces: Pieces = [(pin, colours.accent), (label, style), ("│", colours.faint)]
        for column in window:
            if column == fold:
                pieces.append(("┊ ", colours.faint))
            face = shown.faces[column]
            here = (row, column) == (self.view.row, self.view.column)
            width = self.view.layout.cell - 1
            drawn = self._cell(face, width, here=here, first=first)
            # A pinned cell is underlined: a sign that needs no colour and no room.
            under = Style(underline=True) if face.pinned and first else Style()
            pieces += [(text, style + under) for text, style in drawn]
            # A bar has no room for a dagger: it stands behind it.
            pieces.append(((face.dagger if face.shares and first else "") or " ", colours.text))
        pieces.append(("│", colours.faint))
        for face, width in zip(shown.summary, self.view.layout.summaries, strict=False):
            text = f"{face.text}{face.dagger}" if first else face.detail
            style = colours.text if first and face.kind == "done" else colours.dim
            pieces.append((fit(text, width - 1, "right") + " ", style))
        return pieces

    def _cell(self, face: Face, width: int, *, here: bool, first: bool) -> Pieces:
        """Draw one line of a cell: a number, numbers side by side, or a bar of shares."""
        if face.shares and first:
            return bar(face.shares, width, self.ink, over=self.ink.cursor if here else None)
        if not face.parts:
            text = self._number(face, width) if first else _detail(face.detail, width)
            return [(fit(text, width, "center"), self._style(face, here, first))]
        room = width - len(face.parts) + 1
        widths = [room * (n + 1) // len(face.parts) - room * n // len(face.parts) for n in range(len(face.parts))]
        pieces: Pieces = []
        for part, own in zip(face.parts, widths, strict=True):
            if pieces:
                pieces.append(("│", self.ink.cursor if here else self.ink.faint))
            # Where intervals do not fit they are left out: the line under the matrix has them.
            _, bracket, interval = part.detail.partition("[")
            below = f"{bracket}{interval}" if len(bracket + interval) <= own else ""
            above = part.text + part.dagger
            above = above if len(above) < own else (part.brief or part.text) + part.dagger
            pieces.append((fit(above if first else below, own, "center"), self._style(part, here, first)))
        return pieces

    def _foot(self) -> Pieces:
        colours, foot = self.ink, self.view.model.foot
        if foot is None:
            return []
        fold = self.view.fold
        pieces: Pieces = [(fit(f" {foot.label}", self.view.layout.label), colours.dim), ("│", colours.faint)]
        for column in self.view.window:
            if column == fold:
                pieces.append(("┊ ", colours.faint))
            face = foot.faces[column]
            pieces += [
                (
                    fit(self._number(face, self.view.layout.cell - 1), self.view.layout.cell - 1, "center"),
                    self._style(face, here=False, first=True),
                ),
                (" ", colours.text),
            ]
        return [*pieces, ("│", colours.faint)]

    def _number(self, face: Face, width: int) -> str:
        if face.kind != "done":
            return face.text
        behind = face.dagger + face.mark
        text = f"{face.text:>5}{behind or ' '}"
        if len(text) > width and face.dagger:  # a mark is never what is cut off where there is no room
            text = f"{face.brief or face.text}{behind}" if len(face.text) > width - len(behind) else face.text + behind
        return text

    def _style(self, face: Face, here: bool, first: bool) -> Style:
        colours = self.ink
        if here:
            return colours.cursor if first else colours.cursor + Style(bold=False)
        if face.kind == "done":
            if face.level is None:
                return colours.text if first else colours.dim
            style = scale(step_of(face.level), colours.dark, self.few_colours)
            return style + Style(bold=bool(face.mark)) if first else style
        return {"live": colours.blue, "paused": colours.warn, "failed": colours.bad}.get(face.kind, colours.faint)


def _detail(text: str, width: int) -> str:
    """Return a cell's second line with air at both ends, or its first number alone."""
    return text if len(text) <= width - 1 else text.split(" ")[0]
