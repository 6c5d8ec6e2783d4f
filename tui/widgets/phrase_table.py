"""The phrases of a condition, each with its mean, to see whether they agree."""

from __future__ import annotations

from textual.strip import Strip

from windowshift.core.contract import sanitise
from windowshift.core.contract.scale import Scale
from windowshift.tui.read.cell_snapshot import PhraseMean
from windowshift.tui.text.pieces import Pieces, fit
from windowshift.tui.widgets.inked import Drawn, ink_of


class PhraseTable(Drawn):
    """One line a phrase: text, mean, interval, n."""

    DEFAULT_CSS = "PhraseTable { width: 1fr; height: 1fr; }"

    def __init__(self) -> None:
        super().__init__()
        self._rows: tuple[PhraseMean, ...] = ()
        self._scale = Scale.difference()
        self._push = ""

    def show(self, rows: tuple[PhraseMean, ...], scale: Scale, push: str = "") -> None:
        """Show these phrases' means on a scale; `push` is what steered where there is no phrase."""
        if (rows, scale, push) != (self._rows, self._scale, self._push):
            self._rows, self._scale, self._push = rows, scale, push
            self.refresh()

    @property
    def text(self) -> str:
        """What it says, without styles."""
        return "\n".join("".join(text for text, _ in self._line(y, 120)) for y in range(len(self._rows) + 1))

    def render_line(self, y: int) -> Strip:
        """Draw a line."""
        return self.drawn(self._line(y, self.size.width))

    def _line(self, y: int, width: int) -> Pieces:
        ink = ink_of(self)
        numbers = (7, 14, 6)
        name = max(8, width - sum(numbers) - 2)
        if y == 0:
            head = self._scale.words.value_format.unit or "mean"
            return [(" " + fit("phrase", name), ink.dim), (f"{head:>7}{'95 %':>14}{'n':>6}", ink.dim)]
        room = self.size.height - 2
        if y > len(self._rows):
            return []
        if y > room and len(self._rows) > room + 1:
            more = len(self._rows) - room
            return [(f" … and {more} more", ink.dim)] if y == room + 1 else []
        row = self._rows[y - 1]
        text = sanitise.line((self._push or "no phrase") if row.phrase is None else row.phrase, 200)
        summary, form = row.summary, self._scale.words.value_format
        return [
            (" " + fit(text, name), ink.text if row.phrase else ink.dim),
            (f"{form.text(summary.mean, narrow=True):>7}", ink.strong),
            (f"{form.interval(summary.estimate, narrow=True):>14}", ink.dim),
            (f"{summary.n:>6}", ink.dim),
        ]
