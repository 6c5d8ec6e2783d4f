"""A screen: how many jobs of an experiment are in which state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from textual.app import ComposeResult

from windowshift.core.contract.records import ExperimentRow
from windowshift.core.store.reader import Reader
from windowshift.tui.screens.store_screen import StoreScreen
from windowshift.tui.text import actions
from windowshift.tui.widgets.words import Words


@dataclass(frozen=True, slots=True)
class JobCounts:
    """A snapshot: made in a worker thread, and never changed."""

    experiment: ExperimentRow
    states: dict[str, int]


class CountsScreen(StoreScreen[JobCounts]):
    """One line of counts."""

    SCREEN_NAME = "counts"
    BINDINGS = actions.bindings("counts")

    def __init__(self, name: str) -> None:
        super().__init__()
        self.experiment, self.all = name, True

    def body(self) -> ComposeResult:
        """The widgets between the title line and the keys."""
        words = Words()
        words.add_class("body")
        yield words

    def reading(self) -> Callable[[Reader], JobCounts | None]:
        """What to read; it runs in a thread and must not touch the screen."""
        name = self.experiment

        def read(reader: Reader) -> JobCounts | None:
            row = reader.experiment(name)
            return row and JobCounts(row, dict(Counter(job.state for job in reader.jobs(row.id))))

        return read

    def show(self, snapshot: JobCounts) -> None:
        """Put a snapshot on screen."""
        self.head((self.experiment, "counts"), [], snapshot.experiment)
        found = {state: n for state, n in snapshot.states.items() if self.all or state != "done"}
        text = ", ".join(f"{n} {state}" for state, n in found.items()) or "nothing is left to do"
        self.query_one(Words).show([(text, self.ink.text)])

    def action_unfinished(self) -> None:
        """Every key of the registry has such a method."""
        self.all = not self.all
        if self.snapshot is not None:
            self.show(self.snapshot)
