"""The completions of a cell as a virtual list: texts are read for the rows on screen only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.cache import LRUCache
from textual.message import Message

from windowshift.core.contract import sanitise
from windowshift.core.contract.records import CompletionRow
from windowshift.tui.read.cell_snapshot import IndexEntry
from windowshift.tui.text import columns, formats
from windowshift.tui.text.columns import Column
from windowshift.tui.text.pieces import Piece, Pieces
from windowshift.tui.text.status import FINISH
from windowshift.tui.widgets.inked import ink_of
from windowshift.tui.widgets.line_list import LineList

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
        self.unit = ""
        self._source: Sequence[IndexEntry] = ()
        self._entries: dict[int, IndexEntry] = {}
        self._texts: LRUCache[int, CompletionRow] = LRUCache(4000)
        self._asked: tuple[int, ...] = ()
        """The places whose texts are on their way."""

    def show(self, entries: Sequence[IndexEntry], order: list[int], unit: str) -> None:
        """Show completions in an order; texts that are known stay, the cursor stays on its completion."""
        at = self.order[self.cursor] if self.cursor < len(self.order) else None
        old = self._entries
        if entries is not self._source or not old:
            self._source, self._entries = entries, {entry.row: entry for entry in entries}
        new = self._entries
        changed = [] if new is old else [row for row, entry in new.items() if old.get(row) not in (None, entry)]
        for row in changed:
            self._texts.discard(row)
        same = self.order == order and self.unit == unit and not changed and len(new) == len(old)
        grown = not changed and unit == self.unit and order[: len(self.order)] == self.order
        self.order, self.unit = order, unit
        if same:
            return
        if len(order) != self.count:
            self.set_count(len(order))
        else:
            self.forget()
        if at is not None and not grown and at in new:
            self.move(order.index(at) if at in order else 0)
        self.want()

    def show_again(self, entries: Sequence[IndexEntry], unit: str) -> None:
        """Show what is listed already with newer entries, until it is ordered anew."""
        if entries is self._source and unit == self.unit:
            return
        present = {entry.row for entry in entries}
        self.show(entries, [row for row in self.order if row in present], unit)

    def reset(self) -> None:
        """Forget all texts: another behaviour has other scores."""
        self._texts.clear()
        self._entries, self._source = {}, ()
        self._asked = ()
        self.forget()

    def supply(self, found: Sequence[CompletionRow]) -> None:
        """Take texts that were asked for."""
        for row in found:
            self._texts[row.row] = row
        places, self._asked = self._asked, ()
        if places:
            self.forget(*places)  # also where they went off screen meanwhile: they were drawn without a text
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
        missing = [place for place in places if place < len(self.order) and self.order[place] not in self._texts]
        on_screen = any(self.order[place] not in self._texts for place in shown if place < len(self.order))
        if missing and (on_screen or len(missing) > reach // 2) and not self._asked:
            self._asked = tuple(missing)
            self.post_message(self.Wanted(tuple(self.order[place] for place in missing)))

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
            Column(self.unit or "score", max(7, min(10, len(self.unit))) if self.size.width >= 80 else 7, "right"),
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
                (formats.plain(entry.score), ink.strong),
                ("" if text is None else "?" if text.tokens is None else str(text.tokens), ink.dim),
                (word, getattr(ink, style)),
                (sanitise.line(entry.phrase or "", 100), ink.dim),
                first,
            ],
        )
