"""The app: opens screens, watches the store, asks runs to pause, go on or stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from textual import work
from textual.app import App
from textual.command import Provider
from textual.message import Message

from windowshift.core import control
from windowshift.core.errors import WindowshiftError
from windowshift.core.records import ControlAction, JobRow
from windowshift.tui.cell import CellScreen
from windowshift.tui.completion import CompletionScreen
from windowshift.tui.confirm import ConfirmScreen
from windowshift.tui.experiments import ExperimentsScreen
from windowshift.tui.grid import GridScreen
from windowshift.tui.help import HelpScreen
from windowshift.tui.jobs import JobsScreen
from windowshift.tui.line_list import LineList
from windowshift.tui.palette import ActionProvider
from windowshift.tui.snapshot import CellKey, ExperimentView, read_experiments
from windowshift.tui.status import alive, experiment_status
from windowshift.tui.store_pool import StorePool, StoreWatch
from windowshift.tui.store_screen import StoreScreen
from windowshift.tui.theme import DARK, LIGHT, THEMES

LOOK_EVERY = 0.5
"""Seconds between two looks at the store."""


class WindowshiftApp(App[None]):
    """The terminal UI over one workspace.

    Args:
        workspace: the folder; it may be absent or empty, and fill later.
        experiment: open this experiment's grid at once.
        clock: returns Unix seconds.
        look_every: seconds between two looks at the store.
    """

    CSS_PATH = "app.tcss"
    TITLE = "windowshift"
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {ActionProvider}
    # Textual declares these on the instance, so they cannot be ClassVar here.
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-short"), (32, "-tall")]  # noqa: RUF012

    class StoreChanged(Message):
        """Something was committed."""

        def can_replace(self, message: Message) -> bool:
            """Collapse a burst."""
            return isinstance(message, WindowshiftApp.StoreChanged)

    class Tick(Message):
        """Time went on, the store did not change."""

        def can_replace(self, message: Message) -> bool:
            """Collapse a burst."""
            return isinstance(message, WindowshiftApp.Tick)

    class StoreLost(Message):
        """The store cannot be looked at."""

        def __init__(self, sentence: str) -> None:
            super().__init__()
            self.sentence = sentence

    def __init__(
        self,
        workspace: Path,
        *,
        experiment: str | None = None,
        clock: Callable[[], float] = time.time,
        look_every: float = LOOK_EVERY,
    ) -> None:
        super().__init__()
        self.workspace = workspace
        self.store = StorePool(workspace)
        self.now = clock
        self._first = experiment
        self._look_every = look_every
        self._leaving = threading.Event()
        self.animation_level = "none"

    def on_mount(self) -> None:
        """Open the first screen and begin to watch."""
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = DARK.name
        self.push_screen(ExperimentsScreen())
        if self._first is not None:
            self.open_grid(self._first)
        self._watch_store()

    def on_unmount(self) -> None:
        """Stop watching."""
        self._leaving.set()
        self.store.close()

    # -- watching -------------------------------------------------------------------------------

    @work(thread=True, exit_on_error=False, group="watch")
    def _watch_store(self) -> None:
        watch = StoreWatch(self.workspace)
        first, lost = True, ""
        while not self._leaving.wait(0 if first else self._look_every):
            try:
                changed = watch.changed()
            except WindowshiftError as error:
                if str(error) != lost:
                    lost = str(error)
                    self.post_message(self.StoreLost(lost))
            else:
                back, lost = bool(lost), ""
                # The screens read for themselves when they open: the first look only sets the mark.
                self.post_message(self.StoreChanged() if (changed and not first) or back else self.Tick())
            first = False
        watch.close()

    @property
    def front(self) -> StoreScreen[object] | None:
        """The screen that people look at, under any panel."""
        return next(reversed(self._screens()), None)

    def _screens(self) -> list[StoreScreen[object]]:
        return [screen for screen in self.screen_stack if isinstance(screen, StoreScreen)]

    def on_windowshift_app_store_changed(self) -> None:
        """Let the screen in front read again; those behind it do when they come to the front."""
        for screen in self._screens():
            screen.store_changed()

    def on_windowshift_app_tick(self) -> None:
        """Let clocks go on."""
        if self.front is not None and self.front.ready:
            self.front.tick()

    def on_windowshift_app_store_lost(self, message: StoreLost) -> None:
        """Say what happened to the store; what was read before stays on screen."""
        for screen in self._screens():
            if screen.ready:
                screen.problem("The store is not there", message.sentence)

    # -- screens --------------------------------------------------------------------------------

    def open_grid(self, experiment: str) -> None:
        """Show an experiment's grid."""
        self.push_screen(GridScreen(experiment))

    def open_cell(self, experiment: str, key: CellKey, behaviour: str) -> None:
        """Show a cell."""
        self.push_screen(CellScreen(experiment, key, behaviour))

    def open_completion(self, cell: CellScreen) -> None:
        """Show the completion under a cell's cursor."""
        self.push_screen(CompletionScreen(cell))

    def open_jobs(self, experiment: str) -> None:
        """Show an experiment's jobs."""
        self.push_screen(JobsScreen(experiment))

    def open_help(self, screen_name: str) -> None:
        """Show the keys of a screen."""
        self.push_screen(HelpScreen(screen_name))

    def switch_theme(self) -> None:
        """Switch between dark and light."""
        self.theme = (LIGHT if self.theme == DARK.name else DARK).name

    def _watch_theme(self, theme_name: str) -> None:
        super()._watch_theme(theme_name)
        # Drawn lines carry colours: they are drawn anew.
        for screen in self._screens():
            if screen.ready and screen.snapshot is not None:
                for drawn in screen.query(LineList):
                    drawn.forget()
                screen.show(screen.snapshot)

    def leave(self) -> None:
        """End the screens; say so where a run goes on without them."""
        try:
            views = self.store.read(read_experiments)
        except WindowshiftError:
            views = ()
        running = [view for view in views if alive(view.run, self.now()) and view.row.state in ("running", "paused")]
        if running:
            names = ", ".join(view.row.name for view in running)
            message = f"The run of {names} goes on. Look again with: windowshift tui {self.workspace}"
            self.exit(message=message.replace("[", r"\["))
        else:
            self.exit()

    # -- control --------------------------------------------------------------------------------

    def pause_or_resume(self, view: ExperimentView, job: JobRow | None = None) -> None:
        """Ask a run to pause, or to go on, as a whole or one job of it."""
        state = job.state if job else view.row.state
        if state in ("done", "failed", "cancelled", "planned"):
            self.say(f"Nothing to pause: it is {state}.")
            return
        self._request(view, "resume" if state == "paused" else "pause", job)

    def retry(self, view: ExperimentView, job: JobRow) -> None:
        """Ask a run to try a job again."""
        if job.state not in ("failed", "cancelled"):
            self.say(f"Nothing to try again: the job is {job.state}.")
            return
        self._request(view, "retry", job)

    def cancel(self, view: ExperimentView, job: JobRow | None = None) -> None:
        """Ask a run to stop, after a question."""
        state = job.state if job else view.row.state
        if state in ("done", "failed", "cancelled"):
            self.say(f"Nothing to cancel: it is {state}.")
            return
        what = f"the job “{job.label}”" if job else f"the experiment “{view.row.name}”"

        def answered(yes: bool | None) -> None:
            if yes:
                self._request(view, "cancel", job)

        self.push_screen(ConfirmScreen("Cancel?", f"Cancel {what}? What is done stays; y yes, n no."), answered)

    def _request(self, view: ExperimentView, action: ControlAction, job: JobRow | None) -> None:
        if not alive(view.run, self.now()):
            word = experiment_status(view.row, view.run, self.now()).word
            self.say(f"No run is alive to {action} ({word}): run the same command again to go on.", bad=True)
            return
        self._write_request(view.row.id, action, job.n if job else None)

    @work(thread=True, exit_on_error=False, group="control")
    def _write_request(self, experiment: int, action: ControlAction, job: int | None) -> None:
        try:
            control.request(self.workspace, experiment, action, job)
        except WindowshiftError as error:
            self.call_from_thread(self.say, str(error), bad=True)
        else:
            self.call_from_thread(self.say, f"Asked the run to {action}; it answers in a moment.")

    def say(self, sentence: str, *, bad: bool = False) -> None:
        """Show a short note."""
        self.notify(sentence, severity="error" if bad else "information", markup=False, timeout=4)


def run(workspace: Path, *, experiment: str | None = None, mouse: bool = True) -> int:
    """Show a workspace until the user leaves; return the exit code.

    Args:
        workspace: the folder; it may be absent or empty, and fill later.
        experiment: open this experiment's grid at once, as soon as it is there.
        mouse: take mouse events; without them the terminal's own selection works.
    """
    app = WindowshiftApp(workspace, experiment=experiment)
    app.run(mouse=mouse)
    return app.return_code or 0


__all__ = ["WindowshiftApp", "run"]
