"""The loss curve of a training job, drawn with block characters."""

from __future__ import annotations

from textual.strip import Strip

from windowshift.tui.read.job_snapshot import Losses
from windowshift.tui.text import formats
from windowshift.tui.text.pieces import Pieces
from windowshift.tui.widgets.inked import Drawn, ink_of

# Two columns and four rows of dots in a character: a curve of twice the width.
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


class LossCurve(Drawn):
    """Loss over examples, with its range on the left and its reach below."""

    DEFAULT_CSS = "LossCurve { width: 1fr; height: 1fr; }"

    def __init__(self) -> None:
        super().__init__()
        self._losses: Losses = ()

    def show(self, losses: Losses) -> None:
        """Show a curve."""
        if losses != self._losses:
            self._losses = losses
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """Draw a line."""
        width, height = self.size
        lines = curve(self._losses, width, height)
        ink = ink_of(self)
        if not lines:
            return self.drawn([(" no loss yet", ink.dim)] if y == 0 else [])
        label, dots = lines[y] if y < len(lines) else ("", "")
        pieces: Pieces = [(label, ink.dim), (dots, ink.dim if y == len(lines) - 1 else ink.accent)]
        return self.drawn(pieces)


def curve(losses: Losses, width: int, height: int) -> list[tuple[str, str]]:
    """Return a curve as (label, dots) lines, the axis last; empty where there is nothing to draw."""
    columns, rows = width - 8, height - 1
    if len(losses) < 2 or columns < 4 or rows < 1:
        return []
    points = formats.shrink([loss for _, loss in losses], columns * 2)
    low, high = min(points), max(points)
    span = (high - low) or 1.0
    cells = [[0] * columns for _ in range(rows)]
    last: int | None = None
    reach = columns * 2
    for x in range(reach):
        value = points[min(len(points) - 1, x * len(points) // reach)]
        y = min(rows * 4 - 1, int((high - value) / span * (rows * 4 - 1) + 0.5))
        for between in range(min(y, y if last is None else last), max(y, y if last is None else last) + 1):
            cells[between // 4][x // 2] |= _DOTS[x % 2][between % 4]
        last = y
    lines = []
    for number, row in enumerate(cells):
        label = f"{high:6.2f} " if number == 0 else f"{low:6.2f} " if number == rows - 1 else " " * 7
        lines.append((f"{label}", "".join(chr(0x2800 + dots) if dots else " " for dots in row)))
    first, end = str(losses[0][0]), f"{losses[-1][0]} examples"
    lines.append((" " * 7, first + " " * max(1, columns - len(first) - len(end)) + end))
    return lines
