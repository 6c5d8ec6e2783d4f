"""A worker process of backend `local`: one core, one copy of a small model.

Started by `windowshift.backends.local.crew`; reads orders from a socket and writes back what the streams of
its own in-process backend yield. It ends when the socket closes, so it never outlives its parent.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from windowshift.backends.local.backend import LocalBackend
from windowshift.backends.local.messages import Cancel, Ended, GiveUp, Order, Yielded
from windowshift.core.contract.errors import WindowshiftError
from windowshift.core.contract.terminal import guard


class Worker:
    """Serves orders until the connection closes."""

    def __init__(self, connection: Connection, options: Mapping[str, Any]) -> None:
        self._connection = connection
        self._backend = LocalBackend(options)
        self._streams: dict[int, asyncio.Task[None]] = {}

    async def serve(self) -> None:
        """Take orders; each becomes a task of its own."""
        loop = asyncio.get_running_loop()
        orders: asyncio.Queue[Order | Cancel | GiveUp] = asyncio.Queue()
        threading.Thread(target=self._listen, args=(loop, orders), daemon=True).start()
        while True:
            order = await orders.get()
            if isinstance(order, GiveUp):
                self._backend.give_up(order.keys)
                continue
            if isinstance(order, Cancel):
                running = self._streams.get(order.number)
                if running is not None:
                    running.cancel()
                continue
            # Made here and not in the task: what comes next may give up on some of it.
            stream = getattr(self._backend, order.method)(order.items)
            stream_task = asyncio.create_task(self._stream(order, stream))
            self._streams[order.number] = stream_task
            # Not a `finally` in the task: one that is cancelled before its first step never gets there.
            stream_task.add_done_callback(partial(self._ended, order.number))

    def _listen(self, loop: asyncio.AbstractEventLoop, orders: asyncio.Queue[Order | Cancel | GiveUp]) -> None:
        while True:
            try:
                order = self._connection.recv()
            except (EOFError, OSError):
                # The parent is gone: nothing that is being computed has a reader any more.
                os._exit(0)
            loop.call_soon_threadsafe(orders.put_nowait, order)

    async def _stream(self, order: Order, stream: AsyncGenerator[Any, None]) -> None:
        async with aclosing(stream):
            async for item in stream:
                self._connection.send(Yielded(order.number, [item]))

    def _ended(self, number: int, task: asyncio.Task[None]) -> None:
        del self._streams[number]
        raised = None if task.cancelled() else task.exception()
        error: str | None = None
        if isinstance(raised, WindowshiftError):
            error = str(raised)
        elif raised is not None:  # the parent says it to the caller
            error = f"unexpected error in a worker process: {raised!r}"
        self._connection.send(Ended(number, error))


def main() -> None:
    """Serve the connection whose file descriptor is the first argument."""
    # Ctrl-C goes to the whole group; the parent decides what happens, and closes the connection.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    guard()  # libraries warn of models by their names
    connection = Connection(int(sys.argv[1]))
    options = connection.recv()
    asyncio.run(Worker(connection, options).serve())


if __name__ == "__main__":
    main()
