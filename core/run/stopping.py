"""Stopping by a signal: said at once, done in order; and at once when it is asked for again."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

INTERRUPTED = 130
"""The exit code of a run that was interrupted."""


class Stopping:
    """Lets Ctrl-C and SIGTERM cancel a task while the block runs, and the second of them end the process.

    Nothing is lost by that: what was committed stays, as after a kill, and worker processes end with this one. The
    handlers are Python's own and not the event loop's, which may be busy when a signal comes; and they stay until
    the loop is closed, whose end waits for its threads. Signals come to the main thread alone: in another one
    nothing is done.

    Args:
        say: called in the handler, which may interrupt anything: first with False, then with True, right before
            the process ends.
    """

    def __init__(self, say: Callable[[bool], None]) -> None:
        self._say = say
        self._task: asyncio.Task[Any] | None = None
        self._asked = 0
        self._before: dict[int, Any] = {}

    def cancels(self, task: asyncio.Task[Any]) -> None:
        """Say which task a signal cancels; before there is one, it is a KeyboardInterrupt."""
        self._task = task

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {one: signal.signal(one, self._handle) for one in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's
        self._asked += 1
        if self._task is None:
            raise KeyboardInterrupt
        self._say(self._asked > 1)
        if self._asked > 1:
            os._exit(INTERRUPTED)
        with suppress(RuntimeError):  # the loop is closed: it has ended
            self._task.get_loop().call_soon_threadsafe(self._task.cancel)
