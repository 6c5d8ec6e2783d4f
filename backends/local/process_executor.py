"""Workers as processes of this machine: where a crew has its posts unless somebody says otherwise."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

from windowshift.backends.local.messages import CrewMessage, WorkerMessage
from windowshift.backends.local.post import Post
from windowshift.core.contract.child import deaf_to_interrupts, python_module

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(256 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
"""glibc's: what a pass gives back is kept for the next one, which takes as much. Else the kernel fetches and clears the
pages each time, which is up to a seventh of a step."""


class ProcessPost:
    """A child process at the other end of a socket; it ends when the socket closes. `place` is its number."""

    where, ready, lost = "this machine", True, False

    def __init__(self, options: Mapping[str, Any], place: int) -> None:
        self.place = place
        ours, theirs = socket.socketpair()
        with theirs, deaf_to_interrupts():
            self.process = subprocess.Popen(
                python_module("windowshift.backends.local.worker", str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # One thread a worker, from the first import on: OpenMP pools of several processes fight.
                env={**os.environ, **ONE_THREAD, **KEPT_MEMORY},
            )
        self._connection = Connection(ours.detach())
        self._connection.send(dict(options))

    def listen(self, take: Callable[[WorkerMessage | None], None]) -> None:
        """As `Post.listen`."""
        threading.Thread(target=self._listen, args=(take,), daemon=True).start()

    def _listen(self, take: Callable[[WorkerMessage | None], None]) -> None:
        while True:
            try:
                got = self._connection.recv()
            except (EOFError, OSError, TypeError):  # TypeError: closed meanwhile
                got = None
            take(got)
            if got is None:
                return

    def send(self, message: CrewMessage) -> None:
        """As `Post.send`."""
        self._connection.send(message)

    def close(self) -> None:
        """As `Post.close`."""
        self._connection.close()

    def end(self) -> str:
        """As `Post.end`."""
        self.process.kill()  # it holds nothing: what it saves is renamed into place when whole
        return f"exit code {self.process.wait()}"


class ProcessExecutor:
    """So many processes.

    Args:
        size: how many workers.
        options: the options of backend `local` in a worker.
        devices: of each worker; none: as the options say.
    """

    elastic = False

    def __init__(self, size: int, options: Mapping[str, Any], devices: Sequence[str] = ()) -> None:
        self.size, self._options, self.devices = size, dict(options), tuple(devices)

    async def open(self) -> None:
        """As `Executor.open`: nothing is needed."""

    def hire(self, held: Sequence[Post]) -> list[Post]:
        """As `Executor.hire`."""
        free = set(range(self.size)) - {post.place for post in held if isinstance(post, ProcessPost)}
        return [ProcessPost(self.options_of(place), place) for place in sorted(free)]

    def options_of(self, place: int) -> dict[str, Any]:
        """The options of a worker; one that takes the place of another has its device."""
        return {**self._options, "device": self.devices[place]} if self.devices else self._options

    def refuse(self, post: Post, reason: str) -> None:
        """As `Executor.refuse`: a process of this machine has nothing to be refused for."""

    async def aclose(self) -> None:
        """As `Executor.aclose`: the posts were all."""
