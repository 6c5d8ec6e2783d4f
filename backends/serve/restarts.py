"""When work that ended unexpectedly begins again: later each time, and only so often."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

from windowshift.core.contract import sanitise
from windowshift.core.contract.backoff import Backoff
from windowshift.core.contract.full_disk import FULL_DISK, is_full_disk

TRIES = 12
FIRST_SECONDS, MOST_SECONDS = 1.0, 300.0


class Restarts:
    """What ended unexpectedly, by its id, and from when on it may begin again.

    After `TRIES` failures in a row it is left alone until somebody asks for something, or the server is started anew.

    Args:
        what: the word for a piece of work, for the server's output.
        wake: looks for work that may begin.
        folder: the data folder.
        clock: seconds.
    """

    def __init__(
        self, what: str, wake: Callable[[], None], folder: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what, self._wake, self._folder, self._clock = what, wake, folder, clock
        self._failed: dict[str, tuple[Backoff, float]] = {}
        self._timers: set[asyncio.TimerHandle] = set()

    def due(self, key: str) -> bool:
        """Whether it may begin now."""
        if key not in self._failed:
            return True
        backoff, not_before = self._failed[key]
        return not backoff.over and self._clock() >= not_before

    def failed(self, key: str, error: BaseException) -> None:
        """It ended unexpectedly: say so, and look again in time."""
        backoff = self._failed[key][0] if key in self._failed else Backoff(FIRST_SECONDS, MOST_SECONDS, TRIES)
        wait = backoff.failed()
        self._failed[key] = backoff, self._clock() + wait
        reason = FULL_DISK if self.full_disk(error) else sanitise.line(repr(error))
        then = "it is left alone until the next request" if backoff.over else f"again in {wait:g} s"
        sys.stderr.write(f"windowshift serve: {self._what} {key} ended unexpectedly ({reason}); {then}\n")
        if not backoff.over:
            self._after(wait)

    def full_disk(self, error: BaseException) -> bool:
        """Whether it ended as the disk is full: not its fault."""
        return is_full_disk(error, self._folder)

    def ended(self, key: str) -> None:
        """It ended as it should."""
        self._failed.pop(key, None)

    def look(self) -> None:
        """Look for work; where the queue itself cannot be read, look again in time."""
        try:
            self._wake()
        except Exception as error:  # this runs where nobody would hear of it
            self.failed("queue", error)
        else:
            self.ended("queue")

    def asked(self) -> None:
        """Somebody asked for something: what was left alone is tried once more."""
        for backoff, _ in self._failed.values():
            if backoff.over:
                backoff.failures = TRIES - 1

    def close(self) -> None:
        """Look no more."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _after(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()

        def look() -> None:
            self._timers.discard(timer)
            self.look()

        timer = loop.call_later(seconds + 0.01, look)
        self._timers.add(timer)
