"""The list of experiments: the first screen."""

from __future__ import annotations

from collections.abc import Callable

from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import Static

from windowshift.core.contract import sanitise
from windowshift.core.store.reader import Reader
from windowshift.tui.read.snapshot import ExperimentView, read_experiments
from windowshift.tui.screens.experiments.commands import ExperimentCommands
from windowshift.tui.screens.list_screen import FilterLine
from windowshift.tui.text import actions, columns, formats
from windowshift.tui.text.columns import Column
from windowshift.tui.text.pieces import Pieces, fit, text_of
from windowshift.tui.text.status import alive, elapsed, experiment_status
from windowshift.tui.text.table import TextTable, number, table
from windowshift.tui.widgets.headline import Headline
from windowshift.tui.widgets.inked import ink_of
from windowshift.tui.widgets.line_list import LineList

Snapshot = tuple[ExperimentView, ...]

COLUMNS = (
    Column("experiment", 0),
    Column("state", 13),
    Column("cells", 17),
    Column("setting", 16, above=100),
    Column("model", 23),
    Column("backend", 10, above=120),
    Column("time", 9, "right", above=120),
    Column("cost", 8, "right", above=79),
    Column("started", 11, "right", above=100),
)


def model_name(view: ExperimentView, width: int = 80) -> str:
    """Return the model within a width, always marked where it is only a rehearsal: its name is cut before the mark."""
    name, mark = sanitise.line(view.row.model, 60), " (rehearsal)" if view.row.rehearsal else ""
    return fit(name, width - len(mark)).rstrip() + mark


class ExperimentList(LineList):
    """One line an experiment."""

    def __init__(self) -> None:
        super().__init__()
        self.add_class("body")
        self.rows: list[ExperimentView] = []
        self.columns: tuple[Column, ...] = COLUMNS
        self.now = 0.0

    def show(self, rows: list[ExperimentView], now: float) -> None:
        """Show experiments, repainting only lines that read differently."""
        width = self.size.width
        count = len(rows)
        before = {i: self._cache.get((i, width)) for i in range(min(count, self.count))}
        self.rows, self.now = rows, now
        fitted = self._fitted(rows)
        if fitted != self.columns:
            self.columns = fitted
            self.forget()
            before = {}
        if count != self.count:
            self.set_count(count)
            return
        for place, line in before.items():
            if line is not None and line.text.rstrip() != _plain(self.draw(place, width)):
                self.forget(place)

    def _fitted(self, rows: list[ExperimentView]) -> tuple[Column, ...]:
        """Return columns in which what seldom changes takes no more room than it needs: names get the rest."""
        longest = {
            "setting": max((len(view.row.setting) for view in rows), default=0),
            "model": max((len(model_name(view)) for view in rows), default=0),
            "backend": max((len(view.row.backend) for view in rows), default=0),
        }
        return columns.fitted(COLUMNS, [longest.get(column.title, column.width) for column in COLUMNS])

    def header(self, width: int) -> Pieces:
        """Return the header line."""
        return columns.header(self.columns, width, ink_of(self).dim)

    def draw(self, row: int, width: int) -> Pieces:
        """Return an experiment's line."""
        ink, view = ink_of(self), self.rows[row]
        experiment = view.row
        state = experiment_status(experiment, view.run, self.now)
        full, empty = formats.bar(formats.share(experiment.cells_done, experiment.cells_total), 9)
        progress: Pieces = [
            (full, state.style(ink)),
            (empty, ink.faint),
            (f" {experiment.cells_done}/{experiment.cells_total}", ink.text),
        ]
        spent = elapsed(experiment, view.run, self.now)
        model = next(column.width for column in self.columns if column.title == "model")
        return columns.row(
            self.columns,
            width,
            [
                (sanitise.line(experiment.name, 80), ink.strong),
                (state.text, state.style(ink)),
                progress,
                (sanitise.line(experiment.setting, 40), ink.text),
                (model_name(view, model), ink.text),
                (sanitise.line(experiment.backend, 20), ink.dim),
                ("" if spent is None else formats.duration(spent), ink.dim),
                (formats.money(experiment.usd, local=experiment.backend == "local"), ink.text),
                (formats.age(self.now - (experiment.started or experiment.created)), ink.dim),
            ],
        )


def _plain(pieces: Pieces) -> str:
    return "".join(text for text, _ in pieces).rstrip()


class ExperimentsScreen(ExperimentCommands):
    """Every experiment of the workspace, and what the one under the cursor is about."""

    SCREEN_NAME = "experiments"
    BINDINGS = actions.bindings("experiments")

    def body(self) -> ComposeResult:
        """Lay out list, filter and details."""
        welcome = Static("", id="welcome")
        welcome.display = False
        yield welcome
        yield ExperimentList()
        yield FilterLine()
        yield Static("", id="detail", markup=False)

    def place(self) -> tuple[str, ...]:
        """Return the way here."""
        return ("experiments",)

    def reading(self) -> Callable[[Reader], Snapshot]:
        """Read every experiment."""
        return read_experiments

    @property
    def selected(self) -> ExperimentView | None:
        """The experiment under the cursor."""
        rows = self.query_one(ExperimentList).rows
        return rows[self.lines.cursor] if self.lines.cursor < len(rows) else None

    def show(self, snapshot: Snapshot) -> None:
        """Show the list, or what to do where it is empty."""
        empty = not snapshot
        self.query_one("#welcome").display = empty
        self.lines.display = not empty
        self.query_one("#detail").display = not empty
        if empty:
            self.put("#welcome", self._welcome())
        elif not self.query_one(FilterLine).has_focus:
            self.lines.focus()
        first = not self.lines.count
        self.filtered()
        names = [view.row.name for view in self.query_one(ExperimentList).rows]
        if first and self.shift.places.experiment in names:
            self.lines.move(names.index(self.shift.places.experiment))

    def filtered(self) -> None:
        """Show the experiments that match the filter."""
        known = self.snapshot or ()
        rows = [v for v in known if self.needle in f"{v.row.name} {v.row.setting} {v.row.model}".casefold()]
        self.query_one(ExperimentList).show(rows, self.shift.now())
        count = len(known)
        shown = f"{len(rows)} of {count}" if len(rows) != count else f"{count}"
        word = "experiment" if count == 1 else "experiments"
        place = sanitise.line(str(self.shift.workspace), 60)
        self.query_one(Headline).show((self.crumbs("experiments"), [(f"{shown} {word} in {place} ", self.ink.dim)]))
        self._detail()

    def tick(self) -> None:
        """Times go on, and a run may have fallen silent."""
        if self.snapshot:
            self.filtered()

    def on_line_list_moved(self, message: LineList.Moved) -> None:
        """Show what the cursor stands on."""
        message.stop()
        self._detail()

    def _detail(self) -> None:
        view, ink = self.selected, self.ink
        if view is None:
            self.put("#detail", Text("nothing matches the filter"))
            return
        row = view.row
        state = experiment_status(row, view.run, self.shift.now())
        names = {
            role: ", ".join(sanitise.line(str(item.get("name", "")), 40) for item in row.conditions.get(role, []))
            for role in ("generate", "train", "evaluate")
        }
        jobs = " · ".join(f"{count} {word}" for word, count in sorted(row.jobs.items()))
        where = {role: row.channels.get(role, "user") for role in ("train", "evaluate")}
        channels = " · ".join(f"{role} prefix in the {channel} message" for role, channel in where.items())
        hint = self._hint(view)
        what = f"{sanitise.line(row.setting, 40)} · {model_name(view)} · {sanitise.line(row.backend, 20)}"
        lines: list[Pieces] = [
            [(f"{sanitise.line(row.name, 60)}  ", ink.strong), (state.text, state.style(ink)), (hint, ink.text)],
            [(what, ink.text), (self._times(view), ink.dim)],
            [("generate  ", ink.dim), (names["generate"], ink.text), (f"   D of {row.data_size} examples", ink.dim)],
            [("train     ", ink.dim), (names["train"], ink.text)],
            [("evaluate  ", ink.dim), (names["evaluate"], ink.text)],
            [("channel   ", ink.dim), (channels, ink.text)],
            [("jobs      ", ink.dim), (jobs or "none", ink.text)],
        ]
        if row.error:
            lines.append([("error     ", ink.bad), (sanitise.line(row.error), ink.bad)])
        text = Text("\n").join(text_of(line) for line in lines)
        self.put("#detail", text)

    def _times(self, view: ExperimentView) -> str:
        now, spent = self.shift.now(), elapsed(view.row, view.run, self.shift.now())
        if spent is None:
            return f"   made {formats.age(now - view.row.created)}"
        return f"   {formats.duration(spent)}, started {formats.age(now - (view.row.started or view.row.created))}"

    def _hint(self, view: ExperimentView) -> str:
        state = experiment_status(view.row, view.run, self.shift.now())
        if state.word == "interrupted":
            return "   s goes on with it"
        if view.run is not None and alive(view.run, self.shift.now()):
            return f"   process {view.run.pid} on {sanitise.line(view.run.host, 40)}"
        return ""

    def _welcome(self) -> Text:
        ink, place = self.ink, sanitise.line(str(self.shift.workspace), 100)
        demo, init = "windowshift demo".ljust(26), "windowshift init my.yaml".ljust(26)
        return Text("\n").join(
            text_of(line)
            for line in (
                [("Nothing here yet.", ink.strong)],
                [("", ink.text)],
                [(demo, ink.accent), ("the whole grid on the built-in model", ink.dim)],
                [(init, ink.accent), ("a spec to start from", ink.dim)],
                [(f"windowshift run my.yaml --workspace {place}", ink.accent)],
                [("", ink.text)],
                [("This screen fills in by itself as soon as a run writes to the workspace.", ink.text)],
            )
        )

    def problem(self, title: str, sentence: str) -> None:
        """An absent workspace is no error: say what to do next."""
        if self.shift.store.identity() is None and not self.snapshot:
            self.solved()
            self.show(())
            return
        super().problem(title, sentence)

    def leaving(self) -> None:
        """Keep the cursor."""
        if self.selected is not None:
            self.shift.places.experiment = self.selected.row.name

    def copied(self) -> tuple[str, str] | None:
        """The name under the cursor."""
        return None if self.selected is None else ("experiment", self.selected.row.name)

    def table(self) -> tuple[str, TextTable] | None:
        """The list."""
        heads = ("experiment", "state", "cells", "of", "setting", "model", "backend", "usd")
        now = self.shift.now()
        rows = [
            (
                view.row.name,
                experiment_status(view.row, view.run, now).word,
                str(view.row.cells_done),
                str(view.row.cells_total),
                view.row.setting,
                view.row.model,
                view.row.backend,
                number(view.row.usd),
            )
            for view in self.query_one(ExperimentList).rows
        ]
        return "experiments", table(heads, rows)

    def action_open(self) -> None:
        """Open the grid."""
        if self.selected is not None:
            self.shift.open("grid", self.selected.row.name)

    def action_jobs(self) -> None:
        """Open the jobs."""
        if self.selected is not None:
            self.shift.open("jobs", self.selected.row.name)

    def action_pause(self) -> None:
        """Pause the run, or let it go on."""
        if self.selected is not None:
            self.shift.pause_or_resume(self.selected)

    def action_cancel(self) -> None:
        """Cancel the run."""
        if self.selected is not None:
            self.shift.cancel(self.selected)

    def action_back(self) -> None:
        """There is nothing above this screen: a filter is cleared instead."""
        line = self.query_one(FilterLine)
        if line.value:
            line.action_clear()
