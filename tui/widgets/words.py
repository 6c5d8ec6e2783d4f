"""A sentence that wraps over a fixed number of lines."""

from __future__ import annotations

from collections.abc import Sequence

from textual.strip import Strip

from windowshift.tui.text.pieces import Piece, Pieces
from windowshift.tui.text.words import wrapped
from windowshift.tui.widgets.inked import Drawn


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
