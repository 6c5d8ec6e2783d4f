"""The completions of a cell on its screen: texts for the rows in view, order and filter in a worker."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rich.text import Text
from textual import work
from textual.message import Message
from textual.widgets import Static
from textual.worker import get_current_worker

from windowshift.core.contract.errors import WindowshiftError
from windowshift.core.contract.records import CompletionRow
from windowshift.tui.read.arrangement import Arrangement, arrange
from windowshift.tui.read.cell_snapshot import CellSnapshot, Entry
from windowshift.tui.read.row_filter import FilterError, parse
from windowshift.tui.screens.cell.completion_list import CompletionList
from windowshift.tui.screens.list_screen import ListScreen
from windowshift.tui.text import sanitise
from windowshift.tui.widgets.line_list import LineList

EXAMPLE = 'text  "a text"  -without  len>200  score<3  tokens>=9  end=cut  /^The/  /bees/i'


@dataclass(frozen=True, slots=True)
class Arranged:
    """The rows of one arrangement of one cell's entries."""

    job: int
    wanted: Arrangement
    entries: tuple[Entry, ...]
    rows: list[int]


class CellListing(ListScreen[CellSnapshot]):
    """The part of the cell's screen that lists completions."""

    @dataclass
    class TextsRead(Message):
        """Completions that the list wanted."""

        job: int
        behaviour: str
        found: list[CompletionRow]

    @dataclass
    class Ready(Message):
        """An arrangement was made; `problem` says why it could not be."""

        arranged: Arranged
        problem: str = ""

    def __init__(self) -> None:
        super().__init__()
        self.wanted = Arrangement()
        self._arranged: Arranged | None = None
        self._stuck: Arrangement | None = None
        self._to_top = False

    @property
    def completions(self) -> CompletionList:
        """The list of completions."""
        return self.query_one(CompletionList)

    # -- order and filter -----------------------------------------------------------------------

    def list_completions(self) -> None:
        """Show the completions as they are wanted; what has to be read or sorted first comes in a moment."""
        found = self.snapshot
        if found is None:
            return
        made = self._arranged
        if self.wanted.plain:
            self._put(found, [entry.row for entry in found.entries])
        elif made and (made.job, made.wanted) == (found.cell.job, self.wanted) and made.entries == found.entries:
            self._put(found, made.rows)
        else:
            self.completions.show_again(found.entries, found.behaviour.unit)
            if self.wanted == self._stuck:
                self._title(found, len(self.completions.order))  # it would take as long again
                return
            self._title(found, None)
            self._arrange(found.cell.job, self.wanted, found.entries)

    def _put(self, found: CellSnapshot, rows: list[int]) -> None:
        self.completions.show(found.entries, rows, found.behaviour.unit)
        if self._to_top:
            self._to_top = False
            self.completions.move(0)
        self._title(found, len(rows))

    def _title(self, found: CellSnapshot, count: int | None) -> None:
        parts = [f"completions {self.wanted.words}", *self.wanted.chips]
        if count is None:
            parts.append("looking …")
        elif self.wanted.terms:
            parts.append(f"{count} of {len(found.entries)}")
        title = " · ".join(sanitise.line(part, 60) for part in parts)
        self.completions.border_title = title.replace("[", r"\[")

    @work(thread=True, exit_on_error=False, exclusive=True, group="arrange")
    def _arrange(self, job: int, wanted: Arrangement, entries: tuple[Entry, ...]) -> None:
        worker = get_current_worker()
        rows: list[int] = []
        problem = ""
        try:
            rows = self.shift.store.read(
                lambda reader: arrange(reader, job, entries, wanted, lambda: worker.is_cancelled)
            )
        except FilterError as error:
            problem = str(error)
        except Exception as error:  # as in `StoreScreen`: shown and logged, and the app goes on
            self.failed("The completions cannot be ordered", error)
            return
        if not worker.is_cancelled:
            self.post_message(self.Ready(Arranged(job, wanted, entries, rows), problem))

    def on_cell_listing_ready(self, message: Ready) -> None:
        """Show the rows, unless something else is wanted by now."""
        message.stop()
        found, made = self.snapshot, message.arranged
        if found is None or not self.ready or (made.job, made.wanted) != (found.cell.job, self.wanted):
            return
        if message.problem:
            self._stuck = made.wanted
            self._say_of_filter(message.problem)
            self._title(found, len(self.completions.order))
            return
        self._arranged = made
        if made.entries == found.entries:
            self._put(found, made.rows)
            return
        present = {entry.row for entry in found.entries}  # rows come while a run goes on, and go when it tries again
        self._put(found, [row for row in made.rows if row in present])
        self.list_completions()

    def filtered(self) -> None:
        """Read the filter line; one that cannot be read leaves the list as it is and says why."""
        try:
            terms = parse(self.typed)
        except FilterError as error:
            self._say_of_filter(str(error))
            return
        self._say_of_filter("")
        if terms != self.wanted.terms:
            self.wanted = replace(self.wanted, terms=terms)
            self.list_completions()

    def _say_of_filter(self, sentence: str) -> None:
        line = self.query_one("#filter-problem", Static)
        line.display = bool(sentence)
        line.update(Text(f"✗ {sanitise.line(sentence, 300)}" if sentence else ""))

    def action_sort(self) -> None:
        """Show the next order."""
        self.wanted = self.wanted.next_sort()
        self._to_top = True
        self.list_completions()

    def action_turn(self) -> None:
        """Turn the order round."""
        self.wanted = replace(self.wanted, backwards=not self.wanted.backwards)
        self._to_top = True
        self.list_completions()

    # -- texts ----------------------------------------------------------------------------------

    def on_completion_list_wanted(self, message: CompletionList.Wanted) -> None:
        """Read texts for the list."""
        message.stop()
        if self.snapshot is not None:
            self._read_texts(self.snapshot.cell.job, self.snapshot.behaviour.name, message.rows)

    @work(thread=True, exit_on_error=False, group="texts")
    def _read_texts(self, job: int, behaviour: str, rows: tuple[int, ...]) -> None:
        try:
            found = self.shift.store.read(lambda reader: reader.completions_at(job, behaviour, rows))
        except WindowshiftError as error:
            self.failed("The completions cannot be read", error)
        else:
            self.post_message(self.TextsRead(job, behaviour, found))

    def on_cell_listing_texts_read(self, message: TextsRead) -> None:
        """Hand them to the list."""
        message.stop()
        now = self.snapshot
        if now is not None and (now.cell.job, now.behaviour.name) == (message.job, message.behaviour):
            self.completions.supply(message.found)

    def on_line_list_moved(self, message: LineList.Moved) -> None:
        """Keep texts ahead of the cursor."""
        message.stop()
        self.completions.want()
