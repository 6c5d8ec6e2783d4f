"""One-line widgets: the title line on top and the keys at the bottom."""

from __future__ import annotations

from collections.abc import Sequence

from textual.geometry import Region, Size
from textual.strip import Strip

from windowshift.tui.text import actions
from windowshift.tui.text.pieces import Piece, Pieces, length, spread
from windowshift.tui.widgets.inked import Drawn, ink_of


class Headline(Drawn):
    """Lines with a left and a right end; repaints only when its text changes."""

    DEFAULT_CSS = "Headline { height: auto; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: list[tuple[Pieces, Pieces]] = []

    def show(self, *lines: tuple[Sequence[Piece], Sequence[Piece]]) -> None:
        """Show these lines."""
        new = [(list(left), list(right)) for left, right in lines]
        old, self._lines = self._lines, new
        if len(new) != len(old):
            self.refresh(layout=True)
            return
        width = self.size.width
        for y, (before, after) in enumerate(zip(old, new, strict=True)):
            if before != after:
                # A clock that ticks repaints its own few columns, not the line: ssh pays by the byte.
                start, end = difference(spread(*before, width), spread(*after, width))
                self.refresh(Region(start, y, min(width, end) - start, 1))

    @property
    def text(self) -> str:
        """What it says, without styles."""
        return "\n".join("".join(text for text, _ in [*left, (" ", None), *right]) for left, right in self._lines)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:  # noqa: ARG002 - Textual's signature
        """One row a line."""
        return len(self._lines)

    def render_line(self, y: int) -> Strip:
        """Draw a line."""
        left, right = self._lines[y] if y < len(self._lines) else ([], [])
        return self.drawn(spread(left, right, self.size.width))


def difference(before: Pieces, after: Pieces) -> tuple[int, int]:
    """Return the columns, first and one past the last, in which two lines differ."""
    same = 0
    while same < min(len(before), len(after)) and before[same] == after[same]:
        same += 1
    tail = 0
    while tail < min(len(before), len(after)) - same and before[-1 - tail] == after[-1 - tail]:
        tail += 1
    if length(before) != length(after):
        tail = 0
    return length(after[:same]), max(length(before[: len(before) - tail]), length(after[: len(after) - tail]))


class KeyLine(Drawn):
    """The keys that matter most on this screen, as many as fit."""

    DEFAULT_CSS = "KeyLine { height: 1; dock: bottom; background: $panel; }"

    def __init__(self, screen_name: str) -> None:
        super().__init__()
        self._screen_name = screen_name
        self._hidden: frozenset[str] = frozenset()

    def hide(self, names: frozenset[str]) -> None:
        """Leave out actions that have nothing to do here."""
        if names != self._hidden:
            self._hidden = names
            self.refresh()

    def render_line(self, y: int) -> Strip:  # noqa: ARG002 - it has one line
        """Draw the keys."""
        colours = ink_of(self)
        pieces: Pieces = [(" ", colours.text)]
        for action in actions.footer(self._screen_name, self.size.width - 1, self._hidden):
            pieces += [(action.footed, colours.key), (f" {action.label}  ", colours.dim)]
        return self.drawn(pieces)
