"""A question before something that cannot be taken back."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from windowshift.core.contract import sanitise
from windowshift.tui.text import actions
from windowshift.tui.widgets.headline import KeyLine


class ConfirmScreen(ModalScreen[bool]):
    """Asks; the answer is True for yes."""

    BINDINGS = actions.bindings("confirm")

    def __init__(self, title: str, question: str) -> None:
        super().__init__()
        self._title = title
        self._question = question

    def compose(self) -> ComposeResult:
        """Lay out the panel."""
        with Vertical(id="confirm") as panel:
            panel.border_title = self._title
            yield Static(Text(sanitise.block(self._question, 600)))
        yield KeyLine("confirm")

    def action_yes(self) -> None:
        """Do it."""
        self.dismiss(True)

    def action_no(self) -> None:
        """Leave it."""
        self.dismiss(False)
