"""What widgets that draw themselves share: the inks of the theme, and the colour under the text."""

from __future__ import annotations

from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from windowshift.tui.text.pieces import Pieces, strip
from windowshift.tui.text.theme import Ink, ink


def ink_of(widget: Widget) -> Ink:
    """Return the inks of the theme that is on."""
    return ink(widget.app.theme)


def few_colours(widget: Widget) -> bool:
    """Tell whether the terminal has 256 colours or fewer."""
    return widget.app.console.color_system not in (None, "truecolor")


class Drawn(Widget):
    """A widget that draws pieces line by line. Textual leaves such lines without background: this adds it."""

    def drawn(self, pieces: Pieces, *, over: Style | None = None) -> Strip:
        """Return pieces as a full line on the widget's background, or on `over`."""
        under = self.visual_style.rich_style
        return strip(pieces, self.size.width, under if over is None else under + over)
