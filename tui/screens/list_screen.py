"""A screen around a list: its cursor keys and its filter line."""

from __future__ import annotations

from typing import ClassVar, TypeVar

from textual.binding import BindingType
from textual.widgets import Input

from windowshift.tui.screens.store_screen import StoreScreen
from windowshift.tui.widgets.line_list import LineList

Snapshot = TypeVar("Snapshot")


LONGEST_FILTER = 400


class FilterLine(Input):
    """Where a filter is typed; hidden until `/`, Enter goes back to the list, Escape clears."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "clear", "clear the filter")]

    def __init__(self, placeholder: str = "show lines that contain …") -> None:
        super().__init__(
            placeholder=placeholder, id="filter", compact=True, select_on_focus=False, max_length=LONGEST_FILTER
        )
        self.display = False

    def action_clear(self) -> None:
        """Show everything and go back to the list."""
        self.value = ""
        self.post_message(self.Submitted(self, ""))


class ListScreen(StoreScreen[Snapshot]):
    """A `StoreScreen` whose main widget is a `LineList`."""

    typed = ""

    @property
    def needle(self) -> str:
        """What was typed into the filter line, for a comparison without case."""
        return self.typed.casefold()

    @property
    def lines(self) -> LineList:
        """The list."""
        return self.query_one(".body", LineList)

    def filtered(self) -> None:
        """Show what matches the filter line."""
        raise NotImplementedError

    def action_cursor_up(self) -> None:
        """Move up."""
        self.lines.move(self.lines.cursor - 1)

    def action_cursor_down(self) -> None:
        """Move down."""
        self.lines.move(self.lines.cursor + 1)

    def action_page_up(self) -> None:
        """Move a page up."""
        self.lines.page(-1)

    def action_page_down(self) -> None:
        """Move a page down."""
        self.lines.page(1)

    def action_cursor_first(self) -> None:
        """Go to the first row."""
        self.lines.move(0)

    def action_cursor_last(self) -> None:
        """Go to the last row."""
        self.lines.move(self.lines.count - 1)

    def action_open(self) -> None:
        """Open the row under the cursor."""
        raise NotImplementedError

    def on_line_list_opened(self, message: LineList.Opened) -> None:
        """Open the row that was clicked."""
        message.stop()
        self.action_open()

    def action_filter(self) -> None:
        """Show the filter line and type into it."""
        line = self.query_one(FilterLine)
        line.display = True
        line.focus()

    def on_input_changed(self, message: Input.Changed) -> None:
        """Filter while typing."""
        message.stop()
        if message.value != self.typed:
            self.typed = message.value
            self.filtered()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        """Go back to the list; an empty filter line goes away."""
        message.stop()
        message.input.display = bool(message.input.value)
        self.lines.focus()
