"""The completions of a cell as a virtual list: texts are read for the rows on screen only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.cache import LRUCache
from textual.message import Message

from windowshift.core.records import CompletionRow
from windowshift.tui import columns, figures, sanitise
from windowshift.tui.cell_snapshot import Entry
from windowshift.tui.columns import Column
from windowshift.tui.drawn import ink_of
from windowshift.tui.line_list import LineList
from windowshift.tui.pieces import Piece, Pieces

FINISH = {"stop": ("✓ stop", "dim"), "length": ("… cut", "warn"), "failed": ("✗ failed", "bad")}
"""How a completion ended: by itself, cut off at max_tokens, or not at all."""

AHEAD = 1
"""Pages that are read before they come on screen."""


class CompletionList(LineList):
    """Row, score, tokens, how it ended, first line."""

    @dataclass
    class Wanted(Message):
        """These rows' texts are missing."""

        rows: tuple[int, ...]

    def __init__(self) -> None:
        super().__init__()
        self.add_class("body")
        self.order: list[int] = []
        self._places: dict[int, int] = {}
        self.unit = ""
        self._entries: dict[int, Entry] = {}
        self._texts: LRUCache[int, CompletionRow] = LRUCache(4000)
        self._asked: frozenset[int] = frozenset()

    def show(self, entries: Sequence[Entry], order: list[int], unit: str) -> None:
        """Show completions in an order; texts that are known stay, the cursor stays on its completion."""
        at = self.order[self.cursor] if self.cursor < len(self.order) else None
        new = {entry.row: entry for entry in entries}
        changed = [row for row, entry in new.items() if self._entries.get(row) not in (None, entry)]
        for row in changed:
            self._texts.discard(row)
        same = self.order == order and self.unit == unit and not changed and len(new) == len(self._entries)
        grown = not changed and unit == self.unit and order[: len(self.order)] == self.order
        self._entries, self.order, self.unit = new, order, unit
        self._places = {row: place for place, row in enumerate(order)}
        if same:
            return
        if len(order) != self.count:
            self.set_count(len(order))
        else:
            self.forget()
        if at is not None and not grown and at in new:
            self.move(self._places.get(at, 0))
        self.want()

    def reset(self) -> None:
        """Forget all texts: another behaviour has other scores."""
        self._texts.clear()
        self._entries = {}
        self._asked = frozenset()
        self.forget()

    def supply(self, found: Sequence[CompletionRow]) -> None:
        """Take texts that were asked for."""
        for row in found:
            self._texts[row.row] = row
        self._asked = frozenset()
        lines = [self._places[row.row] for row in found if row.row in self._places]
        if lines:
            self.forget(*lines)
        self.want()

    def text_of(self, row: int) -> str | None:
        """Return a completion's text; None until it is read."""
        found = self._texts.get(row)
        return None if found is None else found.text

    def want(self) -> None:
        """Ask for the texts that are on screen or a page away."""
        shown = self.visible_rows()
        reach = AHEAD * max(1, len(shown))
        near = range(max(0, shown.start - reach), min(self.count, shown.stop + reach))
        places = [*shown, *(place for place in near if place not in shown)]
        missing = [self.order[place] for place in places if place < len(self.order)]
        rows = tuple(row for row in missing if row not in self._texts)
        on_screen = any(self.order[place] not in self._texts for place in shown if place < len(self.order))
        if rows and (on_screen or len(rows) > reach // 2) and not self._asked:
            self._asked = frozenset(rows)
            self.post_message(self.Wanted(rows))

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Scrolling brings other rows on screen."""
        super().watch_scroll_y(old_value, new_value)
        self.want()

    def on_resize(self) -> None:
        """A taller list shows more rows."""
        super().on_resize()
        self.want()

    # -- drawing --------------------------------------------------------------------------------

    def _columns(self) -> tuple[Column, ...]:
        return (
            Column("row", 5, "right"),
            Column(self.unit or "score", 7, "right"),
            Column("tokens", 6, "right"),
            Column("end", 8),
            Column("phrase", 34, above=120),
            Column("completion", 0),
        )

    def header(self, width: int) -> Pieces:
        """Return the header line."""
        return columns.header(self._columns(), width, ink_of(self).dim)

    def draw(self, row: int, width: int) -> Pieces:
        """Return a completion's line."""
        ink = ink_of(self)
        entry = self._entries[self.order[row]]
        text = self._texts.get(entry.row)
        word, style = FINISH.get(entry.finish, (entry.finish, "dim"))
        first: Piece = ("…", ink.faint)
        if text is not None and text.error:
            first = (sanitise.line(text.error, 300), ink.bad)
        elif text is not None:
            first = (sanitise.line(text.text, 300), ink.text)
        return columns.row(
            self._columns(),
            width,
            [
                (str(entry.row), ink.dim),
                (figures.plain(entry.score), ink.strong),
                ("" if text is None else str(text.tokens), ink.dim),
                (word, getattr(ink, style)),
                (sanitise.line(entry.phrase or "", 100), ink.dim),
                first,
            ],
        )
