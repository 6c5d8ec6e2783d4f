"""A worker of backend `local`: one copy of a model that takes orders, and says what comes of them.

As a process of this machine (`windowshift.backends.local.process_executor` starts it) it reads orders from a socket and
writes back what the streams of its own in-process backend yield. It ends when the socket closes, so it never outlives
its parent. Workers on other machines are these too (`windowshift.backends.local.cluster`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, cast

from windowshift.backends.local.messages import Cancel, CrewMessage, Ended, GiveUp, Order, WorkerMessage, Yielded
from windowshift.core.contract.backend import SteeringBackend, StreamingBackend
from windowshift.core.contract.errors import WindowshiftError
from windowshift.core.contract.terminal import guard
from windowshift.core.spec import registry


class Worker:
    """Takes orders within an event loop.

    Args:
        options: the options of its backend.
        tell: called with everything that it says.
    """

    def __init__(self, options: Mapping[str, Any], tell: Callable[[WorkerMessage], None]) -> None:
        # By its name: the backend itself gives work to workers, and no file leads back to itself.
        self._backend = cast(SteeringBackend, registry.backend("local", options))
        self._tell = tell
        self._streams: dict[int, asyncio.Task[None]] = {}

    def take(self, order: CrewMessage) -> None:
        """Do what a message says; an order becomes a task of its own."""
        if isinstance(order, GiveUp):
            cast(StreamingBackend, self._backend).give_up(order.keys)
            return
        if isinstance(order, Cancel):
            running = self._streams.get(order.number)
            if running is not None:
                running.cancel()
            return
        # Made here and not in the task: what comes next may give up on some of it.
        stream = getattr(self._backend, order.method)(order.items)
        stream_task = asyncio.create_task(self._stream(order, stream))
        self._streams[order.number] = stream_task
        # Not a `finally` in the task: one that is cancelled before its first step never gets there.
        stream_task.add_done_callback(partial(self._ended, order.number))

    async def _stream(self, order: Order, stream: AsyncGenerator[Any, None]) -> None:
        async with aclosing(stream):
            async for item in stream:
                self._tell(Yielded(order.number, [item]))

    def _ended(self, number: int, task: asyncio.Task[None]) -> None:
        del self._streams[number]
        raised = None if task.cancelled() else task.exception()
        error: str | None = None
        if isinstance(raised, WindowshiftError):
            error = str(raised)
        elif raised is not None:  # the parent says it to the caller
            error = f"unexpected error in a worker process: {raised!r}"
        self._tell(Ended(number, error))


async def serve(connection: Connection) -> None:
    """Be the worker at the end of a socket until that closes; the first message is its options."""
    worker = Worker(connection.recv(), connection.send)
    loop = asyncio.get_running_loop()
    orders: asyncio.Queue[CrewMessage] = asyncio.Queue()

    def listen() -> None:
        while True:
            try:
                order = connection.recv()
            except (EOFError, OSError):
                # The parent is gone: nothing that is being computed has a reader any more.
                os._exit(0)
            loop.call_soon_threadsafe(orders.put_nowait, order)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        worker.take(await orders.get())


def main() -> None:
    """Serve the connection whose file descriptor is the first argument."""
    # Ctrl-C goes to the whole group; the parent decides what happens, and closes the connection.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    guard()  # libraries warn of models by their names
    asyncio.run(serve(Connection(int(sys.argv[1]))))


if __name__ == "__main__":
    main()
