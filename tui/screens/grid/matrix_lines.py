"""The lines of the grid: heads, rules, rows of cells and the foot, as coloured pieces."""

from __future__ import annotations

from dataclasses import dataclass

from rich.style import Style

from windowshift.tui.read.cell_labels import Face, column_labels
from windowshift.tui.screens.grid.matrix_view import BASE_ROW, MatrixView
from windowshift.tui.text.pieces import Pieces, fit
from windowshift.tui.text.theme import Ink, scale, step_of


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
            text = self._number(face) if first else _detail(face.detail, width)
            style = self._style(face, here, first)
            # A pinned cell is underlined: a sign that needs no colour and no room.
            pieces.append(
                (fit(text, width, "center"), style + Style(underline=True) if face.pinned and first else style)
            )
            pieces.append((" ", colours.text))
        pieces.append(("│", colours.faint))
        for face, width in zip(shown.summary, self.view.layout.summaries, strict=False):
            text = face.text if first else face.detail
            style = colours.text if first and face.kind == "done" else colours.dim
            pieces.append((fit(text, width - 1, "right") + " ", style))
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
                    fit(self._number(face), self.view.layout.cell - 1, "center"),
                    self._style(face, here=False, first=True),
                ),
                (" ", colours.text),
            ]
        return [*pieces, ("│", colours.faint)]

    def _number(self, face: Face) -> str:
        if face.kind != "done":
            return face.text
        return f"{face.text:>5}{face.mark or ' '}"

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
