"""A network of a given length in front of a server on loopback: bytes arrive late, and in order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_CHUNK = 1 << 16


@contextmanager
def delayed(port: int, seconds: float) -> Iterator[int]:
    """Forward a port of this machine, each way `seconds` later; gives the port to talk to."""
    ready = threading.Event()
    found: list[tuple[int, Callable[[], object]]] = []

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def write() -> None:
            while True:
                due, data = await late.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                if not data:
                    writer.close()
                    return
                writer.write(data)
                await writer.drain()

        writing = asyncio.create_task(write())
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                late.put_nowait((loop.time() + seconds, data))
        late.put_nowait((loop.time() + seconds, b""))
        with suppress(OSError):
            await writing

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        with suppress(asyncio.CancelledError):  # the end of it all
            await asyncio.gather(pipe(reader, back), pipe(there, writer))

    async def serve() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        server = await asyncio.start_server(take, "127.0.0.1", 0)
        found.append((server.sockets[0].getsockname()[1], lambda: loop.call_soon_threadsafe(stop.set)))
        ready.set()
        await stop.wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(10)
    (here, end), *_ = found
    try:
        yield here
    finally:
        end()
        thread.join(10)
