"""Panels over a screen: a short list to choose from, and a problem with a way back."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.geometry import Region
from textual.screen import ModalScreen
from textual.widgets import Static

from windowshift.core.contract import sanitise
from windowshift.tui.text import actions
from windowshift.tui.widgets.headline import KeyLine
from windowshift.tui.widgets.inked import ink_of


class ChoiceScreen(ModalScreen[str]):
    """Offers (name, explanation) pairs; the answer is a name, None for leaving."""

    DEFAULT_CSS = """
    #choice-text { text-wrap: nowrap; text-overflow: ellipsis; }
    """
    BINDINGS = actions.bindings("choice")

    def __init__(self, title: str, offered: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._title = title
        self.offered = list(offered)
        self.cursor = 0

    def compose(self) -> ComposeResult:
        """Lay out the panel."""
        with VerticalScroll(id="choice", can_focus=False) as panel:
            panel.border_title = self._title
            yield Static(self.text(), id="choice-text", markup=False)
        yield KeyLine("choice")

    def text(self) -> Text:
        """Return one line a name."""
        ink = ink_of(self)
        text = Text(no_wrap=True, overflow="ellipsis")
        column = max((cell_len(name) for name, _ in self.offered), default=0)
        for place, (name, words) in enumerate(self.offered):
            here = place == self.cursor
            text.append(f" {'▸' if here else ' '} {name:<{column}}  ", ink.strong + ink.row if here else ink.accent)
            text.append(f"{sanitise.line(words, 100)}\n", ink.text if here else ink.dim)
        return text

    def _move(self, place: int) -> None:
        self.cursor = max(0, min(len(self.offered) - 1, place))
        self.query_one("#choice-text", Static).update(self.text())
        line = Region(0, self.cursor, 1, 1)  # a line each
        self.query_one("#choice", VerticalScroll).scroll_to_region(line, animate=False, force=True)

    def action_cursor_up(self) -> None:
        """Move up."""
        self._move(self.cursor - 1)

    def action_cursor_down(self) -> None:
        """Move down."""
        self._move(self.cursor + 1)

    def action_cursor_first(self) -> None:
        """Go to the first."""
        self._move(0)

    def action_cursor_last(self) -> None:
        """Go to the last."""
        self._move(len(self.offered) - 1)

    def action_open(self) -> None:
        """Take the one under the cursor."""
        self.dismiss(self.offered[self.cursor][0] if self.offered else None)

    def action_back(self) -> None:
        """Leave."""
        self.dismiss(None)


class ProblemScreen(ModalScreen[bool]):
    """Says what is wrong with a file; the answer is True for editing it again."""

    BINDINGS = actions.bindings("problem")

    def __init__(self, title: str, sentence: str) -> None:
        super().__init__()
        self._title = title
        self.sentence = sentence

    def compose(self) -> ComposeResult:
        """Lay out the panel."""
        with Vertical(id="confirm") as panel:
            panel.border_title = self._title.replace("[", r"\[")
            yield Static(Text(sanitise.block(self.sentence, 1500)))
        yield KeyLine("problem")

    def action_yes(self) -> None:
        """Edit again."""
        self.dismiss(True)

    def action_no(self) -> None:
        """Leave it."""
        self.dismiss(False)
