"""A crew of worker processes, for models so small that one core is all that one of them can use.

Threads do not help such a model (its operations are too short to split, and Python's lock is held
between them), so each core gets a process with a copy of its own. What a request or a job comes to
does not depend on which worker takes it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import threading
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Literal

from windowshift.backends.local.messages import Cancel, Ended, Order, Yielded
from windowshift.core.contract.child import python_module
from windowshift.core.contract.errors import BackendError


@dataclass
class _Hand:
    """One worker process and the orders it is busy with, by lane."""

    process: subprocess.Popen[bytes]
    connection: Connection
    busy: set[str] = field(default_factory=set)


@dataclass
class _Call:
    """One call of a method: the portions that wait, and where results go."""

    lane: Literal["generate", "train", "make_vectors"]
    waiting: deque[Sequence[Any]]
    results: asyncio.Queue[Yielded | Ended]
    open: dict[int, _Hand] = field(default_factory=dict)


class Crew:
    """Starts workers at the first call and deals portions of work to whoever is free.

    Each worker holds at most one portion of each lane (generate, train, make_vectors) at a time; its own backend
    lets them take turns.

    Args:
        size: how many workers.
        options: the options of backend `local` in a worker.
    """

    def __init__(self, size: int, options: Mapping[str, Any]) -> None:
        self.size, self._options = size, dict(options)
        self._hands: list[_Hand] = []
        self._calls: dict[int, _Call] = {}
        self._waiting: list[_Call] = []
        self._number = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    async def stream(
        self, lane: Literal["generate", "train", "make_vectors"], portions: Sequence[Sequence[Any]]
    ) -> AsyncGenerator[Any, None]:
        """Yield what the workers yield for every portion, in the order of arrival.

        Raises:
            BackendError: a worker died.
        """
        self._start()
        call = _Call(lane, deque(portions), asyncio.Queue())
        self._waiting.append(call)
        self._deal()
        try:
            while call.waiting or call.open:
                got = await call.results.get()
                if isinstance(got, Yielded):
                    for item in got.items:
                        yield item
                    continue
                call.open.pop(got.number, None)
                if got.error is not None:
                    raise BackendError(got.error)
        finally:
            call.waiting.clear()
            self._waiting.remove(call)
            await self._cancel(call)

    async def aclose(self) -> None:
        """End all workers."""
        hands, self._hands = self._hands, []
        for hand in hands:
            hand.connection.close()
        for hand in hands:
            hand.process.kill()  # it holds nothing: what it saves is renamed into place when whole
            await asyncio.to_thread(hand.process.wait)

    def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._hands:
            return
        for _ in range(self.size):
            ours, theirs = socket.socketpair()
            with theirs:
                process = subprocess.Popen(
                    python_module("windowshift.backends.local.worker", str(theirs.fileno())),
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    # One thread a worker, from the first import on: OpenMP pools of several processes fight.
                    env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                )
            hand = _Hand(process, Connection(ours.detach()))
            hand.connection.send(self._options)
            self._hands.append(hand)
            threading.Thread(target=self._listen, args=(hand, self._loop), daemon=True).start()

    def _listen(self, hand: _Hand, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            try:
                got = hand.connection.recv()
            except (EOFError, OSError, TypeError):  # TypeError: closed by aclose meanwhile
                got = None
            try:
                loop.call_soon_threadsafe(self._take, hand, got)
            except RuntimeError:  # the event loop is closed: nobody waits
                return
            if got is None:
                return

    def _take(self, hand: _Hand, got: Yielded | Ended | None) -> None:
        if got is None:
            if hand in self._hands:  # not by aclose: it died
                self._hands.remove(hand)
                code = hand.process.poll()
                for number, call in list(self._calls.items()):
                    if call.open.get(number) is hand:
                        del self._calls[number]
                        error = f"a worker process of backend 'local' died (exit code {code}); run again to go on"
                        call.results.put_nowait(Ended(number, error))
                if not self._hands:
                    for call in self._waiting:
                        call.results.put_nowait(Ended(0, "every worker process of backend 'local' died"))
            return
        call_of = self._calls.get(got.number)
        if call_of is not None:
            call_of.results.put_nowait(got)
        if isinstance(got, Ended):
            ended = self._calls.pop(got.number, None)
            if ended is not None:
                hand.busy.discard(ended.lane)
            self._deal()

    def _deal(self) -> None:
        for call in self._waiting:
            for hand in self._hands:
                if call.waiting and call.lane not in hand.busy:
                    self._number += 1
                    hand.busy.add(call.lane)
                    call.open[self._number] = hand
                    self._calls[self._number] = call
                    hand.connection.send(Order(self._number, call.lane, call.waiting.popleft()))

    async def _cancel(self, call: _Call) -> None:
        """Close a call's streams and wait until their workers have let go."""
        for number, hand in call.open.items():
            try:
                hand.connection.send(Cancel(number))
            except OSError:
                continue  # it died, and said so
        while call.open:
            got = await call.results.get()
            if isinstance(got, Ended):
                call.open.pop(got.number, None)
