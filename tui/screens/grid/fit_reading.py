"""The reading of a grid's fits: what is measured of its behaviours, one reading at a time, with a rest after each."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from textual.message import Message

from windowshift.core.contract.errors import WindowshiftError
from windowshift.tui.read.fits import Fits, read_fits
from windowshift.tui.read.freed_memory import give_back
from windowshift.tui.screens.store_screen import StoreScreen

REST = 40.0
"""It rests this many times as long as the last reading took: every score is read for a fit."""


class FitReading:
    """Measures an experiment in a worker of a screen, which gets `FitReading.Done`.

    Args:
        screen: the screen.
        experiment: its name.
    """

    @dataclass
    class Done(Message):
        """Some behaviours were measured; those that could not be are left out."""

        fits: tuple[Fits, ...]
        cost: float

    def __init__(self, screen: StoreScreen[Any], experiment: str) -> None:
        self._screen, self._experiment = screen, experiment
        self._behaviours: tuple[str, ...] = ()
        self._of: object = None
        self._there = self._busy = self._again = False
        self._rest_until = 0.0

    def want(self, behaviours: tuple[str, ...], of: object) -> None:
        """Have behaviours measured, unless this was done or is under way: `of` tells what there is to measure."""
        if (behaviours, of) != (self._behaviours, self._of):
            if behaviours != self._behaviours:
                self._rest_until = 0.0  # somebody chose them and waits; what comes in by itself can rest
            self._behaviours, self._of = behaviours, of
            self._ask()

    def ended(self, done: Done) -> None:
        """A reading has ended; where more was wanted meanwhile, the next one begins after a rest."""
        self._busy, self._there = False, True
        self._rest_until = time.monotonic() + REST * done.cost
        if self._again:
            self._again = False
            self._ask()

    def _ask(self) -> None:
        if self._busy:
            self._again = True
            return
        self._busy = True
        wait = self._rest_until - time.monotonic()
        if wait > 0 and self._there:
            # A grid that fills by the second must not be read without end.
            self._screen.set_timer(wait, self._rested)
            return
        behaviours = self._behaviours
        self._screen.run_worker(lambda: self._read(behaviours), thread=True, exit_on_error=False, group="fits")

    def _rested(self) -> None:
        self._busy = self._again = False
        self._rest_until = 0.0
        self._ask()

    def _read(self, behaviours: tuple[str, ...]) -> None:
        found: list[Fits] = []
        began = time.thread_time()
        for name in behaviours:
            try:
                query = partial(read_fits, name=self._experiment, behaviour_name=name)
                fits = self._screen.shift.store.read(query)
            except (WindowshiftError, ValueError, ArithmeticError) as error:
                self._screen.log.error(repr(error))
            else:
                found += [fits] if fits is not None else []
        give_back()
        self._screen.post_message(self.Done(tuple(found), time.thread_time() - began))
