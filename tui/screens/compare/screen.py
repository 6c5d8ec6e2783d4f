"""Two to four pinned rows side by side: measures, scatter, and the same prompts' completions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.containers import Container
from textual.message import Message
from textual.widgets import Static

from windowshift.core.contract import sanitise
from windowshift.core.contract.errors import WindowshiftError
from windowshift.core.contract.estimate import runs_note
from windowshift.core.contract.records import measured_beside
from windowshift.core.store.reader import Reader
from windowshift.tui.read.freed_memory import give_back
from windowshift.tui.read.pins import variant
from windowshift.tui.read.snapshot import CellKey, name_beside
from windowshift.tui.screens.compare.aligned import Beside, BesideChoice, BesideSnapshot, read_beside, title
from windowshift.tui.screens.compare.table import CompareTable, Measured, as_table
from windowshift.tui.screens.services import Services
from windowshift.tui.screens.store_screen import StoreScreen
from windowshift.tui.text import actions, formats
from windowshift.tui.text.pieces import Pieces
from windowshift.tui.text.status import FINISH
from windowshift.tui.text.table import TextTable
from windowshift.tui.widgets.pane import Pane, Panes, prompt_text, said_text
from windowshift.tui.widgets.picture import Picture

VIEWS = ("all", "completions", "scatter")


class CompareScreen(Panes, StoreScreen[BesideSnapshot]):
    """The completions come at once; the measures follow from a worker."""

    SCREEN_NAME = "compare"
    BINDINGS = actions.bindings("compare")

    class MeasuresRead(Message):
        """The rows were measured."""

        def __init__(self, asked: tuple[object, ...], found: Measured | None, problem: str) -> None:
            super().__init__()
            self.asked = asked
            self.found = found
            self.problem = problem

    def __init__(self, name: str, behaviour: str | None = None) -> None:
        super().__init__()
        self.experiment = name
        self.behaviour = behaviour
        self.evaluate: str | None = None
        self.position = 0
        self.view = VIEWS[0]
        self.diff = False
        self.found: Measured | None = None
        self._measured: tuple[object, ...] = ()

    @classmethod
    def refusal(cls, shift: Services, experiment: str, *_: Any) -> str:
        """Say what is missing to compare; nothing where nothing is."""
        count = len(shift.places.pins.of(experiment))
        if count >= 2:
            return ""
        return f"Compare takes two to four rows, and {count or 'none'} is pinned: space on the grid pins one."

    def on_mount(self) -> None:
        """Take notes away: they told how to get here, and lie over what is compared."""
        self.app.clear_notifications()

    @property
    def pinned(self) -> tuple[CellKey, ...]:
        """The rows that are compared."""
        return self.shift.places.pins.of(self.experiment)

    def body(self) -> ComposeResult:
        """Lay out table, scatter and panes; there are always panes for four."""
        with Container(id="compare-top"):
            yield CompareTable()
            yield Picture(self.shift.workspace, id="compare-scatter")
        prompt = Static("", id="compare-prompt", markup=False)
        yield prompt
        with Container(id="compare-panes"):
            for place in range(4):
                yield Pane(f"beside-{place}")

    def place(self) -> tuple[str, ...]:
        """Return the way here."""
        return self.experiment, "compare"

    def where(self) -> list[Any]:
        """Its name; the pins are kept beside."""
        return ["compare", self.experiment]

    def reading(self) -> Callable[[Reader], BesideSnapshot | None]:
        """Read one prompt's completions."""
        name = self.experiment
        choice = BesideChoice(self.pinned, self.behaviour, self.evaluate, self.position, self.diff)
        return lambda reader: read_beside(reader, name, choice)

    def nothing(self) -> None:
        """Nothing is pinned, or the experiment went away."""
        self.problem("Nothing to compare", "Pin two to four rows on the grid with space; Esc goes back.")

    def on_resize(self) -> None:
        """Another size has room for other parts."""
        self._arrange()

    def _arrange(self) -> None:
        if not self.ready:
            return
        tall = self.size.height >= 32
        scatter = self.view == "scatter" or (self.view == "all" and tall)
        self.query_one(CompareTable).display = self.view != "completions"
        self.query_one("#compare-scatter").display = scatter
        self.query_one("#compare-scatter").styles.height = "1fr" if self.view == "scatter" and not tall else None
        self.query_one("#compare-top").styles.height = "1fr" if self.view == "scatter" else None
        for part in ("#compare-panes", "#compare-prompt"):
            self.query_one(part).display = self.view != "scatter"

    def show(self, snapshot: BesideSnapshot) -> None:
        """Show the completions, and ask for the measures where they are out of date."""
        ink, found = self.ink, snapshot
        self.position = found.position
        keys = self.pinned
        of = f"prompt {found.position + 1} of {found.count}" if found.count else "no completions yet"
        name = name_beside(found.behaviour, found.experiment.row)
        what = f"{sanitise.line(name, 40)} · " if name else ""
        right: Pieces = [(f"{what}eval {sanitise.line(found.evaluate, 40)} · {of} ", ink.text)]
        self.head((self.experiment, "compare"), right, found.experiment.row, runs_note(found.seeds))
        self._arrange()
        own = found.columns[0].completion
        prompt = self.query_one("#compare-prompt", Static)
        prompt.border_title = f"prompt {sanitise.line(own.prompt_id, 40) if own else ''}".replace("[", r"\[")
        channel = found.experiment.row.channels.get("evaluate", "user")
        prompt.update(prompt_text(own, channel, ink) if own else Text("not there yet", ink.dim))
        for place in range(4):
            pane = self.query_one(f"#beside-{place}", Pane)
            pane.display = place < len(found.columns)
            if pane.display:
                pane.keep(*self._pane(place, found.columns[place], found), ink)
        wanted = (keys, found.behaviour.name, found.cells_done)
        if wanted != self._measured:
            self._measured = wanted
            if self.found is not None and self.found.pinned != keys:
                self.found = None
            self.query_one(CompareTable).show(keys, self.found)
            self._measure(wanted, self.experiment, found.behaviour.name, keys)

    def _pane(self, place: int, column: Beside, found: BesideSnapshot) -> tuple[str, Text]:
        ink, completion = self.ink, column.completion
        name = f"{place + 1} {sanitise.line(title(self.pinned, column.key), 60)}"
        if column.key.evaluate != found.evaluate:
            name += f" → {sanitise.line(column.key.evaluate, 30)}"
        if completion is None:
            return name, Text("not there yet", ink.dim)
        if completion.error:
            return f"{name} · failed", said_text(completion, None, ink)
        score = f"{formats.plain(completion.score)} {found.behaviour.score_unit}".rstrip()
        end = FINISH.get(completion.finish, (completion.finish, ""))[0]
        return f"{name} · {score} · {end}", said_text(completion, column.marked, ink)

    @work(thread=True, exit_on_error=False, exclusive=True, group="measures")
    def _measure(self, asked: tuple[object, ...], name: str, behaviour: str, keys: tuple[CellKey, ...]) -> None:
        found: Measured | None = None
        problem = ""
        try:
            found = self.shift.store.read(lambda reader: measured(reader, name, behaviour, keys))
        except (WindowshiftError, ValueError, ArithmeticError, LookupError) as error:
            self.log.error(repr(error))
            problem = f"The measures failed: {error}"
        give_back()
        self.post_message(self.MeasuresRead(asked, found, problem))

    def on_compare_screen_measures_read(self, message: MeasuresRead) -> None:
        """Show the measures, unless other rows are compared by now."""
        message.stop()
        if not self.ready or message.asked != self._measured:
            return
        self.found = message.found or self.found
        self.query_one(CompareTable).show(self.pinned, self.found, sanitise.line(message.problem))
        self.query_one(Picture).show(self.found.scatter if self.found else None)

    # -- keys -----------------------------------------------------------------------------------

    def copied(self) -> tuple[str, str] | None:
        """The completions of this prompt, one under the other."""
        found = self.snapshot
        if found is None or found.columns[0].completion is None:
            return None
        own = found.columns[0].completion
        parts = [f"prompt {own.prompt_id}\n\n{own.phrase or ''}\n\n{own.prompt}".replace("\n\n\n\n", "\n\n")]
        for column in found.columns:
            text = column.completion.text if column.completion else "(not there yet)"
            parts.append(f"## {title(self.pinned, column.key)} → {column.key.evaluate}\n\n{text}")
        return f"{self.experiment}-{own.prompt_id}", "\n\n".join(parts) + "\n"

    def table(self) -> tuple[str, TextTable] | None:
        """The measures."""
        return (f"{self.experiment}-compare", as_table(self.found)) if self.found is not None else None

    def _go(self, by: int) -> None:
        if self.snapshot is not None:
            place = max(0, min(self.snapshot.count - 1, self.position + by))
            if place != self.position:
                self.position = place
                self.choose()

    def action_next(self) -> None:
        """Show the next prompt."""
        self._go(1)

    def action_previous(self) -> None:
        """Show the prompt before."""
        self._go(-1)

    def _condition(self, by: int) -> None:
        found = self.snapshot
        if found is not None and found.evaluates:
            names = found.evaluates
            self.evaluate = names[(names.index(found.evaluate) + by) % len(names)]
            self.choose()

    def action_next_condition(self) -> None:
        """Show the next eval condition."""
        self._condition(1)

    def action_previous_condition(self) -> None:
        """Show the eval condition before."""
        self._condition(-1)

    def action_view(self) -> None:
        """Show other parts."""
        self.view = VIEWS[(VIEWS.index(self.view) + 1) % len(VIEWS)]
        self._arrange()

    def action_swap(self) -> None:
        """Turn the order round."""
        self.shift.places.pins.turn(self.experiment)
        self.choose()

    def action_diff(self) -> None:
        """Mark the words that differ, or not."""
        self.diff = not self.diff
        self.choose()

    def action_behaviour(self) -> None:
        """Show the next behaviour."""
        if self.snapshot is not None:
            beside = measured_beside(self.snapshot.behaviour, self.snapshot.experiment.row.behaviours)
            names = [behaviour.name for behaviour in beside]
            self.behaviour = names[(names.index(self.snapshot.behaviour.name) + 1) % len(names)]
            self.choose()


def measured(reader: Reader, name: str, behaviour_name: str, keys: tuple[CellKey, ...]) -> Measured | None:
    """Measure pinned rows; runs in a worker thread, because it loads numpy and every score."""
    from windowshift.core.measure.base_match import matched_rows
    from windowshift.core.measure.comparison import compare_rows
    from windowshift.core.measure.grid import load_grid
    from windowshift.core.measure.grid_measures import measure_resampled
    from windowshift.core.measure.resampled import Resampled
    from windowshift.core.report.gallery import grouped
    from windowshift.core.settings.published import published
    from windowshift.tui.read.snapshot import behaviour_of

    experiment = reader.experiment(name)
    if experiment is None:
        return None
    behaviour = behaviour_of(experiment, behaviour_name)
    grid = load_grid(reader, experiment, behaviour)
    rows = [variant(key) for key in keys]
    resampled = Resampled(grid)
    scatter = grouped(measure_resampled(resampled), {row: place for place, row in enumerate(rows, 1)})
    known = published(experiment.setting, behaviour.name)
    return Measured(keys, compare_rows(resampled, rows), scatter, known, matched_rows(resampled, rows))
