"""Stopping by a signal: said at once, done in order; and at once when it is asked for again."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

INTERRUPTED = 130
"""The exit code of a run that was interrupted."""


@contextmanager
def stopping(task: asyncio.Task[Any], say: Callable[[bool], None]) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM cancel a task while the block runs, and the second of them end the process.

    Nothing is lost by that: what was committed stays, as after a kill, and worker processes end with this one. The
    handlers are Python's own and not the event loop's, which may be busy when a signal comes.

    Args:
        task: what is cancelled, on the running event loop.
        say: called in the handler, which may interrupt anything: first with False, then with True, right before
            the process ends.
    """
    if threading.current_thread() is not threading.main_thread():  # signals come to the main one alone
        yield
        return
    loop = asyncio.get_running_loop()
    asked = 0

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's
        nonlocal asked
        asked += 1
        say(asked > 1)
        if asked > 1:
            os._exit(INTERRUPTED)
        loop.call_soon_threadsafe(task.cancel)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
