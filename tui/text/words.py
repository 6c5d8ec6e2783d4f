"""A sentence that wraps over a fixed number of lines."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from textual.strip import Strip

from windowshift.tui.text.pieces import Piece, Pieces
from windowshift.tui.widgets.inked import Drawn


def wrapped(pieces: Sequence[Piece], width: int) -> list[Pieces]:
    """Break pieces into lines of at most `width` columns, at spaces; `\u00a0` keeps words together."""
    lines: list[Pieces] = [[]]
    room = width
    for text, style in pieces:
        for word in _words(text):
            size = cell_len(word.rstrip(" "))
            if size > room and lines[-1]:
                lines.append([])
                room = width
                word = word.lstrip(" ")
            if word:
                lines[-1].append((word.replace("\u00a0", " "), style))
                room -= cell_len(word)
    return lines


def _words(text: str) -> list[str]:
    """Split before every word, its leading spaces with it."""
    words: list[str] = []
    for part in text.split(" "):
        words.append(part if not words else f" {part}")
    return words


class Words(Drawn):
    """Text that takes no layout to change: it repaints its own lines, and only when it reads differently."""

    DEFAULT_CSS = "Words { height: 2; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._pieces: Pieces = []

    def show(self, pieces: Sequence[Piece]) -> None:
        """Show this."""
        if list(pieces) != self._pieces:
            self._pieces = list(pieces)
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """Draw a line."""
        lines = wrapped(self._pieces, max(4, self.size.width - 2))
        return self.drawn([(" ", self._pieces[0][1]), *lines[y]] if y < len(lines) and self._pieces else [])
