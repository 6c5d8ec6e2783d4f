"""One cell: its distribution over the base model's, its phrases, its completions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Static
from textual.worker import get_current_worker

from windowshift.core.contract import sanitise
from windowshift.core.contract.errors import WindowshiftError
from windowshift.core.contract.estimate import ONE_RUN
from windowshift.core.contract.records import BASE, CompletionRow, measured_beside
from windowshift.core.report.rerun_line import rerun_line
from windowshift.core.store.reader import Reader
from windowshift.tui.read import places
from windowshift.tui.read.arrangement import Arrangement, arrange
from windowshift.tui.read.cell_snapshot import CellSnapshot, IndexEntry, read_cell
from windowshift.tui.read.row_filter import FilterError, parse
from windowshift.tui.read.snapshot import CellKey, finished
from windowshift.tui.screens.cell.cell_numbers import cell_name, cell_numbers
from windowshift.tui.screens.cell.completion_list import CompletionList
from windowshift.tui.screens.list_screen import FilterLine, ListScreen
from windowshift.tui.text import actions
from windowshift.tui.text.pieces import Pieces
from windowshift.tui.text.status import status
from windowshift.tui.text.table import TextTable, number, table
from windowshift.tui.widgets.distribution import Distribution, Ridge
from windowshift.tui.widgets.headline import Headline
from windowshift.tui.widgets.line_list import LineList
from windowshift.tui.widgets.phrase_table import PhraseTable

EXAMPLE = 'text  "a text"  -without  len>200  score<3  tokens>=9  end=cut  /^The/  /bees/i'


@dataclass(frozen=True, slots=True)
class Arranged:
    """The rows of one arrangement of one cell's entries."""

    job: int
    wanted: Arrangement
    entries: tuple[IndexEntry, ...]
    rows: list[int]


class CellScreen(ListScreen[CellSnapshot]):
    """Enter on a cell of the grid leads here."""

    SCREEN_NAME = "cell"
    BINDINGS = actions.bindings("cell")

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

    def __init__(self, name: str, key: CellKey, behaviour: str) -> None:
        super().__init__()
        self.experiment = name
        self.key = key
        self.behaviour = behaviour
        self._shown_behaviour = behaviour
        self.wanted = Arrangement()
        self._arranged: Arranged | None = None
        self._stuck: Arrangement | None = None
        self._to_top = False

    def body(self) -> ComposeResult:
        """Lay out numbers, distribution, phrases and list."""
        yield Headline(id="numbers")
        with Horizontal(id="overview"):
            yield Distribution()
            yield PhraseTable()
        yield CompletionList()
        yield FilterLine(EXAMPLE)
        problem = Static("", id="filter-problem", markup=False)
        problem.display = False
        yield problem

    def place(self) -> tuple[str, ...]:
        """Return the way here."""
        return (self.experiment, cell_name(self.key))

    def reading(self) -> Callable[[Reader], CellSnapshot | None]:
        """Read the cell."""
        name, key, behaviour = self.experiment, self.key, self.behaviour
        pinned = self.shift.places.pins.against(name, key)
        return lambda reader: read_cell(reader, name, key, behaviour, pinned)

    def where(self) -> list[Any]:
        """Its name."""
        return ["cell", self.experiment, list(self.key), self.behaviour]

    @classmethod
    def again(cls, *kept: Any) -> CellScreen:
        """Make the screen from what `where` returned."""
        experiment, key, behaviour = kept
        return cls(str(experiment), places.cell_key(key), str(behaviour))

    def nothing(self) -> None:
        """The cell left the plan."""
        self.problem("This cell is gone", f"{cell_name(self.key)} is no longer part of the experiment; Esc goes back.")

    def show(self, snapshot: CellSnapshot) -> None:
        """Show the cell."""
        ink, found = self.ink, snapshot
        state = status(found.cell.state)
        progress = "" if found.cell.state == "done" else f" {found.cell.done}/{found.cell.total}"
        right: Pieces = [(f"{state.text}{progress} ", state.style(ink))]
        self.head(
            (self.experiment, cell_name(self.key)),
            right,
            found.experiment.row,
            "" if self.key.train == BASE else ONE_RUN,
        )
        self.query_one("#numbers", Headline).show(*cell_numbers(found, self.size.width, ink))
        scores = tuple(entry.score for entry in found.entries if entry.score is not None)
        ridges = [Ridge.of("this", scores, found.summary)]
        if found.key.train != BASE:
            ridges.append(Ridge.of("base", found.base_scores, finished(found.base)))
        if found.pinned is not None:
            ridges.append(Ridge.of("pin", found.pinned.scores, finished(found.pinned.cell)))
        self.query_one(Distribution).show(tuple(ridges), found.behaviour.score_unit)
        self.query_one(PhraseTable).show(found.phrases, found.behaviour.scale, found.push)
        if self._shown_behaviour != found.behaviour.name:
            self._shown_behaviour = found.behaviour.name
            self.completions.reset()
        self.list_completions()

    def on_resize(self) -> None:
        """Lay the numbers out for the new width."""
        if self.snapshot is not None:
            self.query_one("#numbers", Headline).show(*cell_numbers(self.snapshot, self.size.width, self.ink))

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
            self.completions.show_again(found.entries, found.behaviour.score_unit)
            if self.wanted == self._stuck:
                self._title(found, len(self.completions.order))  # it would take as long again
                return
            self._title(found, None)
            self._arrange(found.cell.job, self.wanted, found.entries)

    def _put(self, found: CellSnapshot, rows: list[int]) -> None:
        self.completions.show(found.entries, rows, found.behaviour.score_unit)
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
    def _arrange(self, job: int, wanted: Arrangement, entries: tuple[IndexEntry, ...]) -> None:
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

    def on_cell_screen_ready(self, message: Ready) -> None:
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

    def on_cell_screen_texts_read(self, message: TextsRead) -> None:
        """Hand them to the list."""
        message.stop()
        now = self.snapshot
        if now is not None and (now.cell.job, now.behaviour.name) == (message.job, message.behaviour):
            self.completions.supply(message.found)

    def on_line_list_moved(self, message: LineList.Moved) -> None:
        """Keep texts ahead of the cursor."""
        message.stop()
        self.completions.want()

    # -- keys -----------------------------------------------------------------------------------

    def action_behaviour(self) -> None:
        """Show the next behaviour."""
        if self.snapshot is None:
            return
        beside = measured_beside(self.snapshot.behaviour, self.snapshot.experiment.row.behaviours)
        names = [behaviour.name for behaviour in beside]
        if len(names) > 1:
            self.behaviour = names[(names.index(self.snapshot.behaviour.name) + 1) % len(names)]
            self.choose()

    def action_open(self) -> None:
        """Open the completion."""
        order = self.completions.order
        if self.snapshot is not None and self.completions.cursor < len(order):
            self.shift.open("completion", self)

    def action_pin(self) -> None:
        """Pin this cell, or take its pin away."""
        self.shift.toggle_pin(self.experiment, self.key)
        self.choose()

    def action_compare(self) -> None:
        """Compare the pinned rows."""
        self.shift.open("compare", self.experiment, self.behaviour)

    def action_rerun(self) -> None:
        """Copy the command that runs this cell again."""
        if self.snapshot is None:
            return
        key = self.key
        if not self.snapshot.cell.final:
            self.shift.say("A checkpoint is not run again by itself: > on the grid leads to the end of the training.")
            return
        line = rerun_line(self.experiment, self.shift.workspace, (key.generate, key.train, key.evaluate), key.seed)
        self.shift.copy(f"{self.experiment}-{key.train}-{key.evaluate}-rerun", ".sh", f"{line}\n")

    def copied(self) -> tuple[str, str] | None:
        """The completion under the cursor, once its text is read."""
        order, place = self.completions.order, self.completions.cursor
        text = self.completions.text_of(order[place]) if place < len(order) else None
        return (
            None
            if text is None
            else (f"{self.experiment}-{self.key.train}-{self.key.evaluate}-row{order[place]}", text)
        )

    def table(self) -> tuple[str, TextTable] | None:
        """The completions of the list, without their texts."""
        found = self.snapshot
        if found is None:
            return None
        entries = {entry.row: entry for entry in found.entries}
        rows = [
            (
                str(row),
                str(entries[row].prompt),
                entries[row].phrase or "",
                entries[row].finish,
                number(entries[row].score),
            )
            for row in self.completions.order
        ]
        unit = found.behaviour.score_unit or "score"
        return f"{self.experiment}-{self.key.train}-{self.key.evaluate}", table(
            ("row", "prompt", "phrase", "end", unit), rows
        )
