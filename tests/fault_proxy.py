"""A proxy on loopback that stands in front of a real server and breaks what passes through it."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import aiohttp
from aiohttp import web

Fault = Literal["pass", "429", "500", "503", "refuse", "lose", "reset", "cut", "hang", "hang early"]
"""What happens to a request.

``429``, ``500``, ``503``: answered so, and never passed on. ``refuse``: the connection is reset before
anything is passed on. ``lose``: passed on, and the connection is reset in place of an answer. ``reset``:
the answer breaks off in its middle. ``cut``: the answer is whole for HTTP, and half of its JSON.
``hang``: passed on and never answered; ``hang early``: not passed on either.
"""

Choose = Callable[[str, str], Fault]


class FaultProxy:
    """Runs in a thread of its own, so that a test may block.

    Args:
        upstream: the real server's address, without ``/v1``.
        choose: the fault for a method and a path; called for every request.
    """

    def __init__(self, upstream: str, choose: Choose) -> None:
        self.upstream, self.choose = upstream, choose
        self.seen: Counter[str] = Counter()
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        app = web.Application(client_max_size=1 << 28)
        app.router.add_route("*", "/{path:.*}", self._handle)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
        ) as self._session:
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
            await site.start()
            assert site._server is not None
            self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
            self._ready.set()
            await self._stop.wait()
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        fault = self.choose(request.method, request.path)
        self.seen[fault] += 1
        body = await request.read()
        if fault in ("429", "500", "503"):
            error = json.dumps({"error": {"message": f"injected {fault}", "type": "injected", "code": None}})
            headers = {"retry-after-ms": "20"} if fault == "429" else {}
            return web.Response(status=int(fault), text=error, content_type="application/json", headers=headers)
        if fault == "refuse":
            return self._break(request)
        if fault == "hang early":
            await self._stop.wait()
            return self._break(request)
        try:
            kept = {
                name: value for name, value in request.headers.items() if name.lower() not in ("host", "connection")
            }
            async with self._session.request(
                request.method, self.upstream + request.path_qs, data=body, headers=kept
            ) as answer:
                content, status, kind = await answer.read(), answer.status, answer.headers.get("content-type", "")
                passed = {
                    name: value
                    for name, value in answer.headers.items()
                    if name.lower().startswith("x-") or name.lower() == "retry-after"
                }
        except aiohttp.ClientError:  # nobody there: the client sees what it would see without a proxy
            return self._break(request)
        if fault == "lose":
            return self._break(request)
        if fault == "hang":
            await self._stop.wait()
            return self._break(request)
        if fault == "reset":
            response = web.StreamResponse(status=status, headers={"content-type": kind})
            response.content_length = len(content)
            await response.prepare(request)
            await response.write(content[: len(content) // 2])
            return self._break(request, response)
        if fault == "cut":
            content = content[: len(content) // 2]
        return web.Response(status=status, body=content, headers={"content-type": kind, **passed})

    @staticmethod
    def _break(request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return response or web.Response(status=599)


@contextmanager
def faulty(upstream: str, choose: Choose) -> Iterator[FaultProxy]:
    """Put a proxy in front of a server while the block lasts."""
    proxy = FaultProxy(upstream.removesuffix("/v1"), choose)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()


def storm(share: float, *faults: Fault, seed: int = 0, only: Callable[[str, str], bool] = lambda *_: True) -> Choose:
    """Break a share of the requests, each with one of the faults at random."""
    draw = random.Random(seed)
    lock = threading.Lock()

    def choose(method: str, path: str) -> Fault:
        with lock:
            return draw.choice(faults) if only(method, path) and draw.random() < share else "pass"

    return choose
