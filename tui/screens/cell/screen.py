"""One cell: its distribution over the base model's, its phrases, its completions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Static

from windowshift.core.contract.records import BASE
from windowshift.core.store.reader import Reader
from windowshift.tui import actions
from windowshift.tui.read.cell_snapshot import CellSnapshot, read_cell
from windowshift.tui.read.snapshot import CellKey
from windowshift.tui.screens.cell.completion_list import CompletionList
from windowshift.tui.screens.cell.listing import EXAMPLE, CellListing
from windowshift.tui.screens.list_screen import FilterLine
from windowshift.tui.text import formats, sanitise
from windowshift.tui.text.pieces import Pieces, length
from windowshift.tui.text.status import status
from windowshift.tui.text.table import Table, number, table
from windowshift.tui.widgets.distribution import Distribution, Ridge
from windowshift.tui.widgets.headline import Headline
from windowshift.tui.widgets.phrase_table import PhraseTable


def cell_name(key: CellKey) -> str:
    """Return a cell's name: `long → short`."""
    name = f"{key.train} → {key.evaluate}"
    return name if key.train == BASE else f"{name} on {key.generate} data"


class CellScreen(CellListing):
    """Enter on a cell of the grid leads here."""

    SCREEN_NAME = "cell"
    BINDINGS = actions.bindings("cell")

    def __init__(self, name: str, key: CellKey, behaviour: str) -> None:
        super().__init__()
        self.experiment = name
        self.key = key
        self.behaviour = behaviour
        self._shown_behaviour = behaviour

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

    def nothing(self) -> None:
        """The cell left the plan."""
        self.problem("This cell is gone", f"{cell_name(self.key)} is no longer part of the experiment; Esc goes back.")

    def show(self, snapshot: CellSnapshot) -> None:
        """Show the cell."""
        ink, found = self.ink, snapshot
        state = status(found.cell.state)
        progress = "" if found.cell.state == "done" else f" {found.cell.done}/{found.cell.total}"
        self.query_one("#headline", Headline).show(
            (
                self.crumbs(self.experiment, cell_name(self.key)),
                [(f"{state.text}{progress} ", state.style(ink))],
            )
        )
        self.query_one("#numbers", Headline).show(*self._numbers(found))
        own = found.cell.summary
        scores = tuple(entry.score for entry in found.entries if entry.score is not None)
        ridges = [Ridge.of("this", scores, own)]
        if found.key.train != BASE:
            ridges.append(Ridge.of("base", found.base_scores, found.base.summary if found.base else None))
        if found.pinned is not None:
            ridges.append(Ridge.of("pin", found.pinned.scores, found.pinned.cell.summary))
        self.query_one(Distribution).show(tuple(ridges), found.behaviour.unit)
        self.query_one(PhraseTable).show(found.phrases, own.mean if own else None, found.push)
        if self._shown_behaviour != found.behaviour.name:
            self._shown_behaviour = found.behaviour.name
            self.completions.reset()
        self.list_completions()

    def on_resize(self) -> None:
        """Lay the numbers out for the new width."""
        if self.snapshot is not None:
            self.query_one("#numbers", Headline).show(*self._numbers(self.snapshot))

    def _numbers(self, found: CellSnapshot) -> list[tuple[Pieces, Pieces]]:
        ink, summary, unit = self.ink, found.cell.summary, found.behaviour.unit
        if summary is None or summary.mean is None:
            return [([(" no scores yet", ink.dim)], [])]
        pieces: Pieces = [
            (" mean ", ink.dim),
            (f"{formats.plain(summary.mean)} {unit}", ink.strong),
            (f" {formats.interval(summary.low, summary.high)}", ink.text),
        ]
        base = found.base.summary if found.base and found.key.train != BASE else None
        if base is not None and base.mean is not None:
            pieces += [
                ("  base ", ink.dim),
                (formats.plain(base.mean), ink.blue),
                (f" {formats.interval(base.low, base.high)}", ink.text),
            ]
        uplift: Pieces = []
        if found.uplift is not None:
            word = "uplift log2" if found.behaviour.compare == "ratio" else "difference"
            value, low, high = found.uplift
            uplift = [
                (f" {word} ", ink.dim),
                (formats.signed(value), ink.accent),
                (f" {formats.interval(low, high, sign=True)}", ink.text),
            ]
        counts: Pieces = [(f"n {summary.n}", ink.text)]
        share = f" ({summary.truncated / summary.n:.1%})" if summary.truncated and summary.n else ""
        counts.append((f" · {summary.truncated} truncated{share}", ink.warn if summary.truncated else ink.dim))
        counts.append((f" · {found.failed} failed ", ink.bad if found.failed else ink.dim))
        against = self._against(found)
        doses: list[tuple[Pieces, Pieces]] = [
            ([(f" {word} ", ink.dim), (sanitise.line(push, 200), ink.text)], [(" ", ink.dim)])
            for word, push in (("pushed by", found.push), ("trained under", found.train_push))
            if push
        ]
        whole: Pieces = [*pieces, *([(" ", ink.dim), *uplift] if uplift else [])]
        first: list[tuple[Pieces, Pieces]]
        if self.size.width >= 120:
            first = [(whole, counts)]
        elif length(whole) <= self.size.width:
            first = [(whole, []), ([(" ", ink.dim), *counts], [])]
        else:  # no interval is cut off
            first = [(pieces, []), (uplift, counts)]
        return [*first, *doses, *([(against, [])] if against else [])]

    def _against(self, found: CellSnapshot) -> Pieces:
        """Return this cell against the pinned one."""
        if found.pinned is None:
            return []
        ink, pinned = self.ink, found.pinned
        name = f"{pinned.key.train} → {pinned.key.evaluate}"
        if pinned.key.generate != found.key.generate:
            name = cell_name(pinned.key)
        summary = pinned.cell.summary
        pieces: Pieces = [(" pinned ", ink.dim), (sanitise.line(name, 60), ink.good)]
        if summary is not None:
            interval = formats.interval(summary.low, summary.high)
            pieces += [(f" {formats.plain(summary.mean)}", ink.good), (f" {interval}", ink.text)]
        if pinned.against is not None:
            value, low, high = pinned.against
            word = "log2 over it" if found.behaviour.compare == "ratio" else "over it"
            pieces += [(f"  {word} ", ink.dim), (formats.signed(value), ink.accent)]
            pieces.append((f" {formats.interval(low, high, sign=True)}", ink.text))
        return pieces

    # -- keys -----------------------------------------------------------------------------------

    def action_behaviour(self) -> None:
        """Show the next behaviour."""
        if self.snapshot is None:
            return
        names = [behaviour.name for behaviour in self.snapshot.experiment.row.behaviours]
        if len(names) > 1:
            self.behaviour = names[(names.index(self.snapshot.behaviour.name) + 1) % len(names)]
            self.choose()

    def action_open(self) -> None:
        """Open the completion."""
        order = self.completions.order
        if self.snapshot is not None and self.completions.cursor < len(order):
            self.shift.open_completion(self)

    def action_pin(self) -> None:
        """Pin this cell, or take its pin away."""
        self.shift.toggle_pin(self.experiment, self.key)
        self.choose()

    def action_compare(self) -> None:
        """Compare the pinned rows."""
        self.shift.open_compare(self.experiment, self.behaviour)

    def copied(self) -> tuple[str, str] | None:
        """The completion under the cursor, once its text is read."""
        order, place = self.completions.order, self.completions.cursor
        text = self.completions.text_of(order[place]) if place < len(order) else None
        return (
            None
            if text is None
            else (f"{self.experiment}-{self.key.train}-{self.key.evaluate}-row{order[place]}", text)
        )

    def table(self) -> tuple[str, Table] | None:
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
        unit = found.behaviour.unit or "score"
        return f"{self.experiment}-{self.key.train}-{self.key.evaluate}", table(
            ("row", "prompt", "phrase", "end", unit), rows
        )

    def action_jobs(self) -> None:
        """Open the jobs."""
        self.shift.open_jobs(self.experiment)
