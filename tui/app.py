"""The app: opens screens, watches the store, keeps the place."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from textual import work
from textual.await_complete import AwaitComplete
from textual.command import Provider
from textual.message import Message

from windowshift.core.contract.errors import WindowshiftError
from windowshift.tui.read import places
from windowshift.tui.read.deep_link import DeepLink
from windowshift.tui.read.places import Places
from windowshift.tui.read.snapshot import read_experiments
from windowshift.tui.read.store_pool import StorePool, StoreWatch
from windowshift.tui.screens.services import Services, screen_class
from windowshift.tui.screens.store_screen import StoreScreen
from windowshift.tui.text.status import alive
from windowshift.tui.text.theme import DARK, THEMES
from windowshift.tui.widgets.line_list import LineList


def _palette() -> type[Provider]:
    from windowshift.tui.screens.palette import ActionProvider  # it is not needed for the first screen

    return ActionProvider


LOOK_EVERY = 0.5
"""Seconds between two looks at the store."""


class WindowshiftApp(Services):
    """The terminal UI over one workspace.

    Args:
        workspace: the folder; it may be absent or empty, and fill later.
        link: open this experiment, row or cell at once.
        clock: returns Unix seconds.
        look_every: seconds between two looks at the store.
        state: the file that keeps the place between two starts; None keeps nothing.
    """

    CSS_PATH = "app.tcss"
    TITLE = "windowshift"
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {_palette}
    # Textual declares these on the instance, so they cannot be ClassVar here.
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-tiny"), (18, "-short"), (32, "-tall"), (46, "-high")]  # noqa: RUF012

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
        link: DeepLink | None = None,
        clock: Callable[[], float] = time.time,
        look_every: float = LOOK_EVERY,
        state: Path | None = None,
    ) -> None:
        super().__init__()
        self.workspace = workspace
        self.store = StorePool(workspace)
        self.now = clock
        self.places: Places = places.load(state)
        self._state = state
        self._link = link
        self._look_every = look_every
        self._leaving = threading.Event()
        self.animation_level = "none"
        for theme in THEMES:
            self.register_theme(theme)
        # Before the first style sheet is read: to change it later reads them all again.
        self.theme = self.places.theme if self.places.theme in {theme.name for theme in THEMES} else DARK.name

    def on_mount(self) -> None:
        """Open the first screens, where people were the last time, and begin to watch."""
        self.open("experiments")
        if self._link is not None:
            self.open("grid", self._link.experiment, self._link)
        else:
            for where in self.places.stack:
                screen = self._again(where)
                if screen is not None:
                    screen.restored = True
                    self.push_screen(screen)
        self._watch_store()
        self.set_timer(0.5, self._collect_garbage)

    def pop_screen(self) -> AwaitComplete:
        """Leave the screen in front; what it was made of is collected now, and not while the next one opens."""
        left = super().pop_screen()
        self.call_later(self._collect_screen)
        return left

    def _collect_screen(self) -> None:
        gc.collect()

    def _collect_garbage(self) -> None:
        gc.freeze()  # what start made stays: looking through it again and again would cost keys their time
        gc.enable()

    def on_unmount(self) -> None:
        """Stop watching."""
        self._leaving.set()
        self.store.close()

    def _again(self, where: list[Any]) -> StoreScreen[Any] | None:
        """Return a screen that was open the last time; None where it is not known."""
        try:
            kind = screen_class(str(where[0]))
            if not issubclass(kind, StoreScreen) or len(where) < 2:
                return None
            found: StoreScreen[Any] = kind.again(*where[1:])
        except (LookupError, TypeError, ValueError, AttributeError):
            return None
        return found

    def keep_place(self) -> None:
        """Write down what is open, for the next start."""
        self.places.theme = self.theme
        self.places.stack = []
        for screen in self._screens():
            screen.leaving()
            where = screen.where()
            if where is not None:
                self.places.stack.append(where)
        places.save(self._state, self.places)

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
                screen.problem("The store cannot be read", message.sentence)

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
        self.keep_place()
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
