"""A page of drawn lines that scrolls: its lines are made anew for every width."""

from __future__ import annotations

from collections.abc import Callable

from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from windowshift.tui.text.pieces import Pieces
from windowshift.tui.widgets.inked import Drawn

Maker = Callable[[int], list[Pieces]]
"""Returns the lines for a width."""


class Sheet(ScrollView, Drawn, can_focus=False, inherit_bindings=False):
    """Shows lines; the screen's keys scroll it."""

    DEFAULT_CSS = """
    Sheet { height: 1fr; width: 1fr; overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._make: Maker = lambda _: []
        self._lines: list[Pieces] = []
        self._subject: object = None

    def show(self, subject: object, make: Maker) -> None:
        """Show the lines of something; the same subject stays where it was scrolled to."""
        self._make = make
        if subject != self._subject:
            self._subject = subject
            self.scroll_home(animate=False)
        self._remake()

    @property
    def text(self) -> str:
        """What it says, without styles."""
        return "\n".join("".join(text for text, _ in line).rstrip() for line in self._lines)

    def on_resize(self) -> None:
        """Make the lines for the new width."""
        self._remake()

    def _remake(self) -> None:
        width = self.size.width
        lines = self._make(width) if width else []
        if lines != self._lines:
            self._lines = lines
            self.virtual_size = Size(width, len(lines))
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """Draw a line."""
        row = int(self.scroll_offset.y) + y
        return self.drawn(self._lines[row] if row < len(self._lines) else [])
