"""What the colours and glyphs of the grid mean."""

from __future__ import annotations

from textual.strip import Strip

from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.scale import Scale
from windowshift.tui.read.cell_labels import Metric
from windowshift.tui.text.pieces import Pieces, length, spread
from windowshift.tui.text.theme import scale
from windowshift.tui.widgets.inked import Drawn, few_colours, ink_of


class Legend(Drawn):
    """One line: the colour scale from less to more, and the glyphs."""

    DEFAULT_CSS = "Legend { height: 1; }"

    def __init__(self) -> None:
        super().__init__()
        self._shown = False
        self._behaviour = Behaviour("", "", Scale.ratio())
        self._metric: Metric = "uplift"

    def show(self, behaviour: Behaviour, metric: Metric) -> None:
        """Explain the colours of a metric."""
        if not self._shown or (behaviour, metric) != (self._behaviour, self._metric):
            self._shown = True
            self._behaviour, self._metric = behaviour, metric
            self.refresh()

    def render_line(self, y: int) -> Strip:  # noqa: ARG002 - it has one line
        """Draw the line."""
        ink, width = ink_of(self), self.size.width
        few = few_colours(self)
        if not self._shown:
            return self.drawn([])
        pieces: Pieces = [(" ", ink.dim)]
        if self._metric in ("uplift", "link", "mean"):
            ends = self._behaviour.scale.ends
            unit = self._behaviour.scale.words.effect_format.unit
            pieces.append((f"{ends[0]} ", ink.dim))
            pieces += [("  ", scale(step, ink.dark, few)) for step in range(-8, 9, 2)]
            pieces.append((f" {ends[1]}{unit}", ink.dim))
        glyphs: Pieces = [("◔", ink.blue), (" at work  ", ink.dim), ("·", ink.text), (" to come  ", ink.dim)]
        glyphs += [("✗", ink.bad), (" failed  ", ink.dim)]
        if self._metric in ("uplift", "link", "mean"):
            glyphs += [("▾▴", ink.text), (" extremes ", ink.dim)]
        if self._metric in ("uplift", "link", "mean") and length(pieces) + length(glyphs) + len("  vs base ") <= width:
            pieces.append(("  vs base", ink.dim))
        return self.drawn(spread(pieces, glyphs, width))
