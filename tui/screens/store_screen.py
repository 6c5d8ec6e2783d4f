"""What every screen shares: queries in worker threads, the problem panel, clock, keys."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar, cast

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Static

from windowshift.core.contract import sanitise
from windowshift.core.contract.backoff import Backoff
from windowshift.core.contract.errors import WindowshiftError
from windowshift.core.contract.records import ExperimentRow
from windowshift.core.contract.redaction import sentence
from windowshift.core.store.reader import Reader
from windowshift.tui.screens.services import Services
from windowshift.tui.text.pieces import Pieces, length
from windowshift.tui.text.table import TextTable
from windowshift.tui.text.theme import Ink
from windowshift.tui.widgets.experiment_line import model_mark
from windowshift.tui.widgets.headline import Headline, KeyLine
from windowshift.tui.widgets.inked import ink_of

Snapshot = TypeVar("Snapshot")

REST = 24.0
"""A screen rests this many times as long as its last reading took: a busy store costs it 4 % of a core, and drawing."""


class StoreScreen(Screen[None], Generic[Snapshot]):
    """A screen that shows one snapshot of the store and asks for a new one when the store changed.

    Subclasses give `reading` (what to read, run in a thread), `show` (put it on screen) and
    `body` (the widgets between the title line and the keys).
    """

    SCREEN_NAME: ClassVar[str]
    AUTO_FOCUS = ".body"

    @dataclass
    class Loaded(Message):
        """A snapshot was read."""

        snapshot: Any
        asked: int
        cost: float = 0.0

    @dataclass
    class Failed(Message):
        """A snapshot could not be read."""

        title: str
        sentence: str
        log: str = ""

    def __init__(self) -> None:
        super().__init__()
        self.snapshot: Snapshot | None = None
        self._loading = False
        self._again = False
        self._asked = 0
        self._stale = False
        self.restored = False
        self._rest_until = 0.0
        self._failures = Backoff(0.25, 10.0)
        self._resting = False
        self._texts: dict[str, Text] = {}
        self._head: tuple[tuple[str, ...], Pieces, ExperimentRow | None, str] | None = None

    @property
    def shift(self) -> Services:
        """The app."""
        return cast(Services, self.app)

    @property
    def in_front(self) -> bool:
        """Whether people look at it: there are only panels over it."""
        return next((one for one in reversed(self.app.screen_stack) if isinstance(one, StoreScreen)), None) is self

    @property
    def ready(self) -> bool:
        """Whether its widgets are there: messages also arrive before they are and while the app leaves."""
        return self.is_running and bool(self.query("#headline"))

    @property
    def ink(self) -> Ink:
        """The inks of the theme that is on."""
        return ink_of(self)

    # -- for subclasses -------------------------------------------------------------------------

    def reading(self) -> Callable[[Reader], Snapshot | None]:
        """Return what to read; it runs in a thread and must not touch the screen."""
        raise NotImplementedError

    def show(self, snapshot: Snapshot) -> None:
        """Put a snapshot on screen."""
        raise NotImplementedError

    def place(self) -> tuple[str, ...]:
        """Return the names on the way here, for the title line while nothing is read yet."""
        return ()

    def nothing(self) -> None:
        """Say why there is nothing to show: the query found none."""

    def tick(self) -> None:
        """Update what depends on the clock alone."""

    def body(self) -> ComposeResult:
        """Yield the widgets between the title line and the keys."""
        raise NotImplementedError

    def where(self) -> list[Any] | None:
        """Return what opens this screen again after a restart, as JSON values, its name first; None: it is not kept."""
        return None

    @classmethod
    def again(cls, *kept: Any) -> StoreScreen[Any]:
        """Make the screen from what `where` returned after its name.

        Raises:
            TypeError, ValueError, LookupError: it was written by another version.
        """
        return cls(*map(str, kept))

    def copied(self) -> tuple[str, str] | None:
        """Return (name, text) of what is under the cursor; None where there is nothing."""
        return None

    def table(self) -> tuple[str, TextTable] | None:
        """Return (name, table) of what this screen lists; None where there is none."""
        return None

    def action_jobs(self) -> None:
        """Open the jobs of the experiment that this screen is of."""
        self.shift.open("jobs", self.place()[0])

    # -- frame ----------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """Lay out title line, problem panel, body and keys."""
        yield Headline(id="headline")
        problem = Static("", id="problem")
        problem.display = False
        yield problem
        yield from self.body()
        yield KeyLine(self.SCREEN_NAME)

    def crumbs(self, *names: str) -> Pieces:
        """Return the path from the workspace to here."""
        pieces: Pieces = [(" windowshift", self.ink.dim)]
        for number, name in enumerate(names):
            last = number == len(names) - 1
            pieces += [(" ▸ ", self.ink.faint), (sanitise.line(name, 80), self.ink.strong if last else self.ink.text)]
        return pieces

    def head(self, names: Sequence[str], right: Pieces, row: ExperimentRow | None = None, note: str = "") -> None:
        """Show the title line: the path from the workspace to here, the model, and what belongs to the right end.

        A rehearsal model is always marked as one; where there is little room, what everybody knows goes first. A note
        on the numbers stands in the line where it has room, else in one of its own.
        """
        self._head = tuple(names), right, row, note
        self._show_head()

    def _show_head(self) -> None:
        if self._head is None or not self.ready:
            return
        names, right, row, note = self._head
        crumbs, width = self.crumbs(*names), self.size.width
        model = model_mark(row, self.ink) if row is not None else []
        for left, mark in ((crumbs, model), (crumbs, model[1:]), (crumbs[1:], model[1:])):
            if length([*left, *mark, *right]) < width:
                break
        said: Pieces = [(f"{note} · ", self.ink.dim)] if note else []
        if not note or length([*left, *mark, *said, *right]) < width:
            self.query_one("#headline", Headline).show((left, [*mark, *said, *right]))
        else:
            self.query_one("#headline", Headline).show((left, [*mark, *right]), ([], [(f"{note} ", self.ink.dim)]))

    def on_resize(self) -> None:
        """Lay the title line out for the new width."""
        self._show_head()

    def put(self, selector: str, text: Text) -> None:
        """Put a text on a `Static`; without a change nothing is repainted, without another line nothing moves."""
        before = self._texts.get(selector)
        if before is None or (before.plain, before.spans) != (text.plain, text.spans):
            self._texts[selector] = text
            lines = before is None or before.plain.count("\n") != text.plain.count("\n")
            self.query_one(selector, Static).update(text, layout=lines)

    def problem(self, title: str, sentence: str) -> None:
        """Show what went wrong in a titled panel; what was on screen stays."""
        panel = self.query_one("#problem", Static)
        panel.border_title, panel.border_subtitle = title, ""
        panel.update(Text(sanitise.block(sentence)))
        panel.display = True

    def solved(self) -> None:
        """Take the panel away."""
        panel = self.query_one("#problem", Static)
        if panel.display:
            panel.display = False

    # -- loading --------------------------------------------------------------------------------

    def on_mount(self) -> None:
        """Say where this is, and read the first snapshot."""
        self.query_one("#headline", Headline).show((self.crumbs(*self.place()), []))
        self.reload()

    def on_screen_resume(self) -> None:
        """Catch up with what happened while another screen was in front."""
        if self._stale:
            self._stale = False
            self.reload()
        elif self.snapshot is not None and self.ready:
            self.tick()

    def store_changed(self) -> None:
        """Read again, now or when this screen comes to the front."""
        if not self.in_front:
            self._stale = True
            return
        wait = self._rest_until - time.monotonic()
        if wait <= 0:
            self.reload()
        elif not self._resting:
            self._resting = True
            self.set_timer(wait, self._rested)

    def _rested(self) -> None:
        self._resting = False
        self.store_changed()

    def choose(self) -> None:
        """Read again because something else was chosen: an answer under way is out of date."""
        self._asked += 1
        self.reload()

    def reload(self) -> None:
        """Read again; while one reading is under way, at most one more waits."""
        if self._loading:
            self._again = True
            return
        self._loading = True
        self._read(self.reading(), self._asked)

    @work(thread=True, exit_on_error=False, group="read")
    def _read(self, query: Callable[[Reader], Snapshot | None], asked: int) -> None:
        began = time.thread_time()
        try:
            snapshot = self.shift.store.read(query)
        except WindowshiftError as error:
            self.failed("The store cannot be read", error)
        except Exception as error:  # a screen must not take the app down; what happened is shown and logged
            self.failed("This view failed", error)
        else:
            self.post_message(self.Loaded(snapshot, asked, time.thread_time() - began))

    def failed(self, title: str, error: Exception) -> None:
        """Log an error and have its sentence shown in a panel. For worker threads."""
        from windowshift.tui.read import error_log

        known = isinstance(error, WindowshiftError)
        said = str(error) if known else sentence(f"{type(error).__name__}: {error}")
        self.post_message(self.Failed(title, said, error_log.note(self.shift.workspace, error)))

    def on_store_screen_loaded(self, message: Loaded) -> None:
        """Show the snapshot, unless something else was chosen meanwhile."""
        message.stop()
        self._loading = False
        if not self.ready:
            return
        began = time.thread_time()
        self._failures.succeeded()
        if message.asked == self._asked:
            self.solved()
            if message.snapshot is None and self.restored and self.app.screen is self:
                self.app.pop_screen()  # kept from the last time, and gone since
            elif message.snapshot is None:
                self.nothing()
            else:
                self.snapshot = message.snapshot
                self.show(message.snapshot)
        cost = message.cost + time.thread_time() - began
        self._rest_until = time.monotonic() + REST * cost
        self._load_next()

    def on_store_screen_failed(self, message: Failed) -> None:
        """Show the problem."""
        message.stop()
        self._loading = False
        self._rest_until = time.monotonic() + self._failures.failed()
        if not self.ready:
            return
        self.problem(message.title, message.sentence)
        if message.log:
            self.query_one("#problem", Static).border_subtitle = f"log: {message.log}".replace("[", r"\[")
        self._load_next()

    def _load_next(self) -> None:
        if self._again:
            self._again = False
            self.reload()

    # -- keys that every screen has -------------------------------------------------------------

    def action_copy(self) -> None:
        """Copy what is under the cursor."""
        found = self.copied() if self.snapshot is not None else None
        if found is None:
            self.shift.say("There is nothing to copy here.")
        else:
            self.shift.copy(found[0], ".txt", found[1])

    def action_copy_table(self) -> None:
        """Copy the table as Markdown."""
        self._copy_table(".md")

    def action_copy_tsv(self) -> None:
        """Copy the table as tab-separated values."""
        self._copy_table(".tsv")

    def _copy_table(self, suffix: str) -> None:
        found = self.table() if self.snapshot is not None else None
        if found is None:
            self.shift.say("There is no table to copy here.")
            return
        name, table = found
        self.shift.copy(name, suffix, table.markdown() if suffix == ".md" else table.tsv())

    def action_back(self) -> None:
        """Leave this screen."""
        if len(self.app.screen_stack) > 2:
            self.leaving()
            self.app.pop_screen()

    def leaving(self) -> None:
        """Note what should be found again when this place is opened anew."""

    def action_help(self) -> None:
        """Show the keys."""
        self.shift.open("help", self.SCREEN_NAME)

    def action_theme(self) -> None:
        """Switch the theme."""
        self.shift.switch_theme()

    async def action_quit(self) -> None:
        """Leave."""
        self.shift.leave()
