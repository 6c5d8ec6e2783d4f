"""A list drawn line by line: a million rows cost what one page costs."""

from __future__ import annotations

from dataclasses import dataclass

from textual import events
from textual.cache import LRUCache
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from windowshift.tui.text.pieces import Pieces
from windowshift.tui.widgets.inked import Drawn, ink_of


class LineList(ScrollView, Drawn, can_focus=True, inherit_bindings=False):
    """One line a row under a header line that stays; subclasses say how a row reads.

    Its keys are the screen's: a scroll view's own would scroll without moving the cursor.
    Rows are drawn when they come on screen and kept in a cache until `forget` or `resize`.
    """

    DEFAULT_CSS = """
    LineList { height: 1fr; overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1; }
    """

    @dataclass
    class Moved(Message):
        """The cursor stands on another row."""

        row: int

        def can_replace(self, message: Message) -> bool:
            """Collapse a burst."""
            return isinstance(message, LineList.Moved)

    class Opened(Message):
        """A row was clicked that had the cursor already."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.cursor = 0
        self.count = 0
        self._cache: LRUCache[tuple[int, int], Strip] = LRUCache(2000)

    # -- for subclasses -------------------------------------------------------------------------

    def header(self, width: int) -> Pieces:
        """Return the header line."""
        raise NotImplementedError

    def draw(self, row: int, width: int) -> Pieces:
        """Return a row's line."""
        raise NotImplementedError

    # -- rows -----------------------------------------------------------------------------------

    def set_count(self, count: int) -> None:
        """Say how many rows there are; the cursor stays where it is if it can."""
        if count == self.count:
            return
        self.count = count
        self._resize_virtual()
        self.cursor = max(0, min(self.cursor, count - 1))
        self.forget()

    def forget(self, *rows: int) -> None:
        """Draw rows anew, or all of them."""
        width = self._row_width
        if not rows:
            self._cache.clear()
            self.refresh()
            return
        for row in rows:
            self._cache.discard((row, width))
            self._refresh_row(row)

    def visible_rows(self) -> range:
        """Return the rows that are on screen."""
        top = int(self.scroll_offset.y)
        return range(top, min(self.count, top + self._page))

    # -- cursor ---------------------------------------------------------------------------------

    def move(self, row: int) -> None:
        """Put the cursor on a row and bring it on screen."""
        row = max(0, min(row, self.count - 1))
        old, self.cursor = self.cursor, row
        top = int(self.scroll_offset.y)
        if row < top:
            self.scroll_to(y=row, animate=False, immediate=True)
        elif row >= top + self._page:
            self.scroll_to(y=row - self._page + 1, animate=False, immediate=True)
        if row != old:
            self._refresh_row(old)
            self._refresh_row(row)
            self.post_message(self.Moved(row))

    def page(self, direction: int) -> None:
        """Move the cursor by a page."""
        self.move(self.cursor + direction * max(1, self._page - 1))

    def on_click(self, event: events.Click) -> None:
        """Move the cursor to a row, or open the one that has it."""
        row = int(self.scroll_offset.y) + event.y - 1
        if event.y < 1 or row >= self.count:
            return
        if row == self.cursor:
            self.post_message(self.Opened())
        else:
            self.move(row)

    def on_focus(self) -> None:
        """Draw the cursor."""
        self._refresh_row(self.cursor)

    def on_resize(self) -> None:
        """Draw everything for the new width."""
        self._resize_virtual()
        self.forget()

    # -- drawing --------------------------------------------------------------------------------

    @property
    def _page(self) -> int:
        return max(1, self.size.height - 1)

    @property
    def _row_width(self) -> int:
        return self.size.width

    def _resize_virtual(self) -> None:
        self.virtual_size = Size(self._row_width, self.count + 1)

    def _refresh_row(self, row: int) -> None:
        y = row - int(self.scroll_offset.y) + 1
        if 1 <= y < self.size.height:
            self.refresh(Region(0, y, self.size.width, 1))

    def render_line(self, y: int) -> Strip:
        """Draw one line of the screen."""
        width = self._row_width
        colours = ink_of(self)
        if y == 0:
            return self.drawn(self.header(width), over=colours.dim)
        row = int(self.scroll_offset.y) + y - 1
        if row >= self.count:
            return self.drawn([])
        if row == self.cursor:
            return self.drawn([(text, style + colours.row) for text, style in self.draw(row, width)], over=colours.row)
        line = self._cache.get((row, width))
        if line is None:
            line = self._cache[(row, width)] = self.drawn(self.draw(row, width))
        return line
