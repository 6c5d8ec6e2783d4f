"""What the colours and glyphs of the grid mean."""

from __future__ import annotations

from textual.strip import Strip

from windowshift.core.contract import sanitise
from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.truncation import DAGGER
from windowshift.tui.read.cell_labels import Metric
from windowshift.tui.read.together import Together
from windowshift.tui.text.pieces import Pieces, length, spread
from windowshift.tui.text.share_bar import REST, look
from windowshift.tui.text.theme import Ink, scale
from windowshift.tui.widgets.inked import Drawn, few_colours, ink_of


class Legend(Drawn):
    """One line: the colour scale from less to more, and the glyphs."""

    DEFAULT_CSS = "Legend { height: 1; }"

    def __init__(self) -> None:
        super().__init__()
        self._shown = False
        self._behaviour = Behaviour("", "", Scale.ratio())
        self._metric: Metric = "uplift"
        self._together: Together | None = None
        self._cut = False

    def show(
        self, behaviour: Behaviour, metric: Metric, together: Together | None = None, *, cut: bool = False
    ) -> None:
        """Explain the colours of a metric, or what stands together in a cell; `cut`: and the dagger."""
        before = (self._behaviour, self._metric, self._together, self._cut)
        if not self._shown or (behaviour, metric, together, cut) != before:
            self._shown, self._cut = True, cut
            self._behaviour, self._metric, self._together = behaviour, metric, together
            self.refresh()

    def _of_several(self, together: Together, ink: Ink) -> Pieces:
        """Say which number, or which part of a bar, is which behaviour's."""
        pieces: Pieces = [(" ", ink.dim)]
        for number, one in enumerate(together.behaviours):
            name = sanitise.line(one.name, 30)
            if together.kind == "outcomes":
                glyph, style = look(number, ink)
                pieces += [(glyph * 2, style), (f" {name}  ", ink.text)]
            else:
                role = "to keep" if one.role == "positive" else "to suppress"
                pieces += [(" │ " if number else "", ink.faint), (name, ink.text), (f" ({role})", ink.dim)]
        if together.kind == "outcomes":
            return [*pieces, (f"{REST}{REST} none of these", ink.dim)]
        few = few_colours(self)
        for step, word in ((-8, "less"), (8, "more than base")):
            pieces += [("   ", ink.dim), ("  ", scale(step, ink.dark, few)), (f" {word}", ink.dim)]
        return pieces

    def render_line(self, y: int) -> Strip:  # noqa: ARG002 - it has one line
        """Draw the line."""
        ink, width = ink_of(self), self.size.width
        few = few_colours(self)
        if not self._shown:
            return self.drawn([])
        several = self._together
        pieces: Pieces = [(" ", ink.dim)] if several is None else self._of_several(several, ink)
        if several is None and self._metric in ("uplift", "link", "mean"):
            ends = self._behaviour.scale.ends
            unit = self._behaviour.scale.words.effect_format.unit
            pieces.append((f"{ends[0]} ", ink.dim))
            pieces += [("  ", scale(step, ink.dark, few)) for step in range(-8, 9, 2)]
            pieces.append((f" {ends[1]}{unit}", ink.dim))
        work: Pieces = [("◔", ink.blue), (" at work  ", ink.dim)]
        later: Pieces = [("·", ink.text), (" to come  ", ink.dim)]
        glyphs: Pieces = [("✗", ink.bad), (" failed  ", ink.dim)]
        cut: Pieces = [(DAGGER, ink.text), (" truncated  ", ink.dim)] if self._cut else []
        glyphs += cut
        if several is None and self._metric in ("uplift", "link", "mean"):
            glyphs += [("▾▴", ink.text), (" extremes ", ink.dim)]
        # Where there is little room, what speaks for itself goes unsaid before what does not.
        fits = length(pieces) + length(work) + length(later) + length(glyphs) <= width
        glyphs = [*work, *later, *glyphs] if fits or not self._cut else [*work, *glyphs]
        if several is None and self._metric in ("uplift", "link", "mean"):
            pieces += [("  vs base", ink.dim)] if length(pieces) + length(glyphs) + len("  vs base ") <= width else []
        if length(pieces) + length(glyphs) >= width and several is not None:
            glyphs = cut  # which behaviour is which cannot be guessed; the glyphs can
        return self.drawn(spread(pieces, glyphs, width))
