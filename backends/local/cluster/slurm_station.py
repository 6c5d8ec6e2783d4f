"""The job that a station is under Slurm: it calls the driver, and is queued again where its time is over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Connection
from typing import Any

from windowshift.backends.local.cluster.freight import StationMessage
from windowshift.backends.local.cluster.parcels import Dropbox
from windowshift.backends.local.cluster.station import Station
from windowshift.core.contract.terminal import guard

_CALLS = 5
_WAIT_SECONDS = 5.0
_LEAVE_SECONDS = 60.0
"""How long a job that is queued again may take to end: what still computes in it has no reader."""
_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 20, "TCP_KEEPCNT": 6}
"""A machine that went away without a word is missed after three minutes; the system's own two hours are too long."""


def keep_alive(connection: Connection) -> None:
    """Have the other end's machine asked now and then whether it is there, so that reading ends where it is not."""
    with socket.socket(fileno=os.dup(connection.fileno())) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _ALIVE.items():
            if hasattr(socket, name):
                raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


@dataclass(frozen=True, slots=True)
class Farewell:
    """The job's time is over, or its machine is wanted for something else; it is queued again."""


@dataclass(frozen=True, slots=True)
class Call:
    """Which job calls the driver."""

    number: int


@dataclass
class StationJob:
    """What Slurm runs; pickled into the folder that all machines see.

    Attributes:
        number: which of the driver's jobs it is.
        address: where the driver listens.
        key: shows that a caller is one of the driver's.
        url: the folder that artifacts go through.
        options: those of backend `local` there.
    """

    number: int
    address: tuple[str, int]
    key: bytes = field(repr=False)
    url: str
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        self._connection: Connection | None = None
        self._sending: threading.Lock | None = None  # made in the job: a lock cannot be pickled

    def __call__(self) -> None:
        """Work until the driver ends the call."""
        guard()
        connection = self._called()
        if connection is None:  # the driver is no more: another run submits its own
            return
        self._connection, self._sending = connection, threading.Lock()
        asyncio.run(self._serve(connection))

    def checkpoint(self) -> Any:
        """Called by submitit when the time is over: the same job is queued again."""
        from submitit.helpers import DelayedSubmission
        from submitit.local.local import LOCAL_REQUEUE_RETURN_CODE

        leaving = threading.Timer(_LEAVE_SECONDS, os._exit, (LOCAL_REQUEUE_RETURN_CODE,))
        leaving.daemon = True
        leaving.start()
        # Forgotten before it is used: the driver hangs up as soon as it is told, and a job that finds its call ended
        # by the driver ends, with nobody to queue it again.
        connection, self._connection = self._connection, None
        if connection is not None and self._sending is not None:
            # This is a signal handler of the main thread, and a thread sends: two messages must not mix.
            with self._sending, contextlib.suppress(OSError):
                connection.send(Farewell())
            connection.close()
        return DelayedSubmission(StationJob(self.number, self.address, self.key, self.url, self.options))

    def _called(self) -> Connection | None:
        for tries in range(_CALLS):
            try:
                connection = Client(self.address, authkey=self.key)
            except OSError:
                time.sleep(2.0**tries / 2)
                continue
            keep_alive(connection)
            connection.send(Call(self.number))
            return connection
        return None

    async def _serve(self, connection: Connection) -> None:
        station = Station(self.options, Dropbox(self.url), Dropbox(self.url))
        loop = asyncio.get_running_loop()

        def listen() -> None:
            while True:
                try:
                    message = connection.recv()
                except (EOFError, OSError, TypeError):  # TypeError: closed by `checkpoint`
                    if self._connection is not None:
                        os._exit(0)  # nothing that is computed has a reader any more
                    return
                loop.call_soon_threadsafe(station.put, message)

        threading.Thread(target=listen, daemon=True).start()
        known = 0
        while True:
            for number, message in await station.said(known, _WAIT_SECONDS):
                known = number
                try:
                    await asyncio.to_thread(self._send, connection, message)
                except OSError:
                    os._exit(0)

    def _send(self, connection: Connection, message: StationMessage) -> None:
        assert self._sending is not None
        with self._sending:
            if self._connection is not None:  # not after the farewell
                connection.send(message)
