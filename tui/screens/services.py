"""The app as screens know it: opens them by name, asks runs to pause, go on or stop, asks people, copies, says.

No screen imports another one, or the app: `SCREENS` says where each is, and it is imported when it is first opened.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual import work
from textual.app import App
from textual.screen import Screen

from windowshift.core.contract import sanitise
from windowshift.core.contract.errors import StoreError, WindowshiftError
from windowshift.core.contract.records import ControlAction, JobRow
from windowshift.core.contract.whole_file import within
from windowshift.core.store import control
from windowshift.tui.read.places import Places
from windowshift.tui.read.snapshot import CellKey, ExperimentView
from windowshift.tui.read.store_pool import StorePool
from windowshift.tui.text.status import alive
from windowshift.tui.text.theme import THEMES
from windowshift.tui.widgets import clipboard

if TYPE_CHECKING:
    from windowshift.core.report.figure import Plot

_ROOM = "windowshift.tui"
SCREENS: dict[str, str] = {
    "experiments": f"{_ROOM}.screens.experiments.screen:ExperimentsScreen",
    "grid": f"{_ROOM}.screens.grid.screen:GridScreen",
    "cell": f"{_ROOM}.screens.cell.screen:CellScreen",
    "completion": f"{_ROOM}.screens.cell.completion:CompletionScreen",
    "compare": f"{_ROOM}.screens.compare.screen:CompareScreen",
    "plots": f"{_ROOM}.screens.plots:PlotsScreen",
    "microscope": f"{_ROOM}.screens.microscope:MicroscopeScreen",
    "steering": f"{_ROOM}.screens.steering.screen:SteeringScreen",
    "jobs": f"{_ROOM}.screens.jobs.screen:JobsScreen",
    "help": f"{_ROOM}.screens.help:HelpScreen",
    "choice": f"{_ROOM}.widgets.choice:ChoiceScreen",
    "problem": f"{_ROOM}.widgets.choice:ProblemScreen",
    "confirm": f"{_ROOM}.widgets.confirm:ConfirmScreen",
}
"""Every screen, by the name under which its keys stand in `text.actions.REGISTRY`: `module:class`."""


def screen_class(name: str) -> type[Screen[Any]]:
    """Return the class of a screen; its module is loaded now.

    Raises:
        KeyError: there is no such screen.
    """
    module, _, cls = SCREENS[name].partition(":")
    found: type[Screen[Any]] = getattr(import_module(module), cls)
    return found


class Services(App[None]):
    """The part of the app that acts on runs, on the clipboard and on people's attention."""

    workspace: Path
    store: StorePool
    places: Places
    now: Callable[[], float]

    # -- screens --------------------------------------------------------------------------------

    def open(self, name: str, *what: Any, answered: Callable[[Any], None] | None = None) -> None:
        """Show a screen of the table over the others.

        Args:
            name: its name in `SCREENS`.
            what: what it shows, as its class takes it.
            answered: called with what a panel was left with.
        """
        kind = screen_class(name)
        # A screen that cannot be opened now says why in place of coming up empty.
        refusal: Callable[..., str] | None = getattr(kind, "refusal", None)
        sentence = refusal(self, *what) if refusal else ""
        if sentence:
            self.say(sentence)
        else:
            self.push_screen(kind(*what), answered)

    def toggle_pin(self, experiment: str, key: CellKey) -> None:
        """Pin a cell, or take its pin away, and say so."""
        self.say(self.places.pins.toggle(experiment, key))

    def switch_theme(self) -> None:
        """Switch to the next theme."""
        names = [theme.name for theme in THEMES]
        self.theme = names[(names.index(self.theme) + 1) % len(names)]

    def leave(self) -> None:
        """End the screens."""
        raise NotImplementedError

    # -- control --------------------------------------------------------------------------------

    def pause_or_resume(self, view: ExperimentView, job: JobRow | None = None) -> None:
        """Ask a run to pause, or to go on, as a whole or one job of it."""
        paused = (job.state if job else view.row.state) == "paused"
        self._request(view, "resume" if paused else "pause", job)

    def retry(self, view: ExperimentView, job: JobRow) -> None:
        """Ask a run to try a job again."""
        self._request(view, "retry", job)

    def move_first(self, view: ExperimentView, job: JobRow) -> None:
        """Ask a run to do a job, and what it waits for, before all others."""
        self._request(view, "first", job)

    def move_last(self, view: ExperimentView, job: JobRow) -> None:
        """Ask a run to do a job after all others."""
        self._request(view, "last", job)

    def cancel(self, view: ExperimentView, job: JobRow | None = None) -> None:
        """Ask a run to stop, after a question."""
        if self._refused(view, "cancel", job):
            return
        what = f"the job “{job.label}”" if job else f"the experiment “{view.row.name}”"

        def answered(yes: bool | None) -> None:
            if yes:
                self._request(view, "cancel", job)

        self.ask("Cancel?", f"Cancel {what}? What is done stays; y yes, n no.", answered)

    def ask(self, title: str, question: str, answered: Callable[[bool | None], None]) -> None:
        """Ask before something that cannot be taken back."""
        self.open("confirm", title, question, answered=answered)

    def _refused(self, view: ExperimentView, action: ControlAction, job: JobRow | None) -> bool:
        """Whether an action would change nothing; why is said."""
        unscored = bool(job is not None and job.result.get("unscored"))
        run = view.run if alive(view.run, self.now()) else None  # a silent one answers nobody who waits at a screen
        reason = control.refusal(action, view.row, run, job, unscored=unscored, now=self.now())
        if reason is None:
            return False
        self.say(f"{reason[0].upper()}{reason[1:]}.", bad=run is None)
        return True

    def _request(self, view: ExperimentView, action: ControlAction, job: JobRow | None) -> None:
        if not self._refused(view, action, job):
            self._write_request(view.row.id, action, job.n if job else None)

    @work(thread=True, exit_on_error=False, group="control")
    def _write_request(self, experiment: int, action: ControlAction, job: int | None) -> None:
        try:
            control.request(self.workspace, experiment, action, job)
        except WindowshiftError as error:
            self.call_from_thread(self.say, str(error), bad=True)
        else:
            self.call_from_thread(self.say, f"Asked the run to {control.ASKED[action]}; it answers in a moment.")

    def say(self, sentence: str, *, bad: bool = False) -> None:
        """Show a short note."""
        self.notify(sanitise.line(sentence, 600), severity="error" if bad else "information", markup=False, timeout=4)

    # -- figures --------------------------------------------------------------------------------

    def write_figure(self, plot: Plot, *names: str) -> None:
        """Write a figure into the workspace's plots folder, under a name of these parts."""
        if plot.empty:
            self.say(f"Nothing to write: {plot.note}.")
        else:
            self._write_figure(plot, names)

    @work(thread=True, exit_on_error=False, group="export")
    def _write_figure(self, plot: Plot, names: tuple[str, ...]) -> None:
        from windowshift.core.report.figure_file import FORMATS, file_name, write_plot

        name = file_name(*names)
        try:
            written = write_plot(plot, within(self.workspace, "plots"), name, FORMATS)
        except WindowshiftError as error:
            self.call_from_thread(self.say, str(error), bad=True)
        except Exception as error:  # a drawing library that fails must not take the app down
            self.call_from_thread(self.say, f"The figure failed: {type(error).__name__}: {error}", bad=True)
        else:
            kinds = ", ".join(path.suffix[1:].upper() for path in written)
            self.call_from_thread(self.say, f"Wrote {kinds}: plots/{name}.*")

    # -- copying --------------------------------------------------------------------------------

    def copy_to_clipboard(self, text: str) -> None:
        """Send text to the terminal's clipboard (OSC 52), through tmux too."""
        self._clipboard = text
        if self._driver is not None:
            self._driver.write(clipboard.osc52(text, tmux=clipboard.in_tmux()))

    @work(thread=True, exit_on_error=False, group="copy")
    def copy(self, name: str, suffix: str, text: str) -> None:
        """Copy text: to the clipboard, else through the terminal, and always to a file; say which it was."""
        try:
            path = clipboard.write_copy(self.workspace, name, suffix, text, self.now())
        except (OSError, StoreError) as error:
            place = f"no file: {getattr(error, 'strerror', None) or error}"
        else:
            place = f"{path.parent.name}/{path.name}"
        first = text.strip().partition("\n")[0]
        what = sanitise.line(first, 40) if "\n" not in text.strip() else name
        if clipboard.system_clipboard(text):
            route = "to the clipboard"
        elif len(text.encode(errors="replace")) > clipboard.LONGEST:
            route = "to the file alone, it is too long for a terminal"
        else:
            self.call_from_thread(self.copy_to_clipboard, text)
            route = "through the terminal (OSC 52; not every one takes it)"
        self.call_from_thread(self.say, f"Copied {what} {route}; {place}")
