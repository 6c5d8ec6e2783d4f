"""Panels over a screen: a short list to choose from, and a problem with a way back."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import zip_longest

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

_LONGEST = 300
"""Characters of an explanation that are shown."""
_NARROWEST = 16


class ChoiceScreen(ModalScreen[str]):
    """Offers (name, explanation) pairs; the answer is a name, None for leaving."""

    DEFAULT_CSS = "#choice { scrollbar-gutter: stable; }"
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
            yield Static("", id="choice-text", markup=False)
        yield KeyLine("choice")

    def on_mount(self) -> None:
        """Write the names once the panel has its width."""
        self.call_after_refresh(self._write)

    def on_resize(self) -> None:
        """Break the explanations anew."""
        self.call_after_refresh(self._write)

    def lines(self, width: int) -> list[list[tuple[str, str]]]:
        """Return the lines of each entry, as a name or nothing, and a part of its explanation.

        The explanation stands beside the column of names where there is room, else below its name.
        """
        column = max((cell_len(name) for name, _ in self.offered), default=0)
        beside = width - column - 2 >= _NARROWEST
        found = []
        for name, words in self.offered:
            parts = textwrap.wrap(sanitise.line(words, _LONGEST), max(1, width - (column if beside else 0) - 2)) or [""]
            names = zip_longest([name], parts, fillvalue="") if beside else [(name, ""), *(("", one) for one in parts)]
            found.append([(f"{one:<{column if beside else 0}}  ", part) for one, part in names])
        return found

    def _write(self) -> None:
        shown, ink = self.query_one("#choice-text", Static), ink_of(self)
        parts, written = list[Text](), self.lines(shown.size.width - len(" ▸ "))
        for place, lines in enumerate(written):
            here = place == self.cursor
            for number, (name, words) in enumerate(lines):
                sign = " ▸ " if here and not number else "   "
                part = Text().append(f"{sign}{name}", ink.strong + ink.row if here else ink.accent)
                parts.append(part.append(words, ink.text if here else ink.dim))
        shown.update(Text("\n").join(parts))
        heights = [len(lines) for lines in written]
        region = Region(0, sum(heights[: self.cursor]), 1, heights[self.cursor] if heights else 1)
        self.query_one("#choice", VerticalScroll).scroll_to_region(region, animate=False, force=True)

    def _move(self, place: int) -> None:
        self.cursor = max(0, min(len(self.offered) - 1, place))
        self._write()

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
