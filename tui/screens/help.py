"""Every key of the screen below, from the registry."""

from __future__ import annotations

from textwrap import wrap

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from windowshift.tui.text import actions
from windowshift.tui.widgets.inked import ink_of


class HelpScreen(ModalScreen[None]):
    """A panel over the screen that it explains."""

    BINDINGS = actions.bindings("help")

    def __init__(self, screen_name: str) -> None:
        super().__init__()
        self.screen_name = screen_name

    def compose(self) -> ComposeResult:
        """Lay out the panel."""
        with VerticalScroll(id="help", can_focus=False) as panel:
            panel.border_title = f"Keys · {self.screen_name.capitalize()}"
            panel.border_subtitle = "Esc closes"
            yield Static(self.text(), id="help-text", markup=False)

    def text(self) -> Text:
        """Return one line a key."""
        ink = ink_of(self)
        # The panel's own width, as the style sheet has it: at most 72 and 96 % of the screen, less frame and margin.
        width = max(12, min(72, int(self.app.size.width * 0.96)) - 17)
        text = Text()
        for action in actions.REGISTRY[self.screen_name]:
            first, *more = wrap(action.help, width)
            text.append(f"{action.shown:>7}  ", ink.accent).append(f"{first}\n", ink.text)
            for line in more:
                text.append(f"{'':>9}{line}\n", ink.text)
        text.append("\nA cell's colour is its change against the base model: blue less, orange more.\n", ink.dim)
        text.append("Hold Shift (Option on a Mac) to select text with the mouse.", ink.dim)
        return text

    def action_back(self) -> None:
        """Close the panel."""
        self.dismiss()

    def action_quit(self) -> None:
        """Close the panel: whoever reads help did not mean to leave."""
        self.dismiss()

    def action_cursor_up(self) -> None:
        """Scroll up."""
        self.query_one("#help", VerticalScroll).scroll_relative(y=-1, animate=False)

    def action_cursor_down(self) -> None:
        """Scroll down."""
        self.query_one("#help", VerticalScroll).scroll_relative(y=1, animate=False)
