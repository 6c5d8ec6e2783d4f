"""Workers as jobs of Slurm, through submitit: an array of them, each of which calls the driver when it starts.

Slurm gives machines and takes them back; work is dealt out by the crew, so that a job whose time is over, or that was
preempted, loses nothing: it says farewell, is queued again, and calls again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, Listener, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any

from windowshift.backends.local.cluster.freight import Shipper, StationPost, unshipped
from windowshift.backends.local.cluster.options import SlurmSection
from windowshift.backends.local.cluster.parcels import Dropbox
from windowshift.backends.local.cluster.slurm_station import Call, Farewell, StationJob, keep_alive
from windowshift.backends.local.messages import Order
from windowshift.backends.local.post import Post
from windowshift.core.contract.errors import BackendError, MissingExtraError
from windowshift.core.contract.home import at_home

log = logging.getLogger("windowshift.local")

_POLL_SECONDS = 0.1
_CALL_SECONDS = 30
"""How long a caller may take to say who it is."""
_TIMEOUTS = 100_000
"""How often a job may be queued again: as often as its time is over."""


class _Held:
    """One job's post, and the call of the job where it called."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.post: StationPost
        self.connection: Connection | None = None
        self.ended = False


class SlurmExecutor:
    """Gives out posts in jobs of Slurm.

    Args:
        section: what a job asks Slurm for.
        size: how many jobs.
        options: the options of backend `local` in a worker.
    """

    elastic = True

    def __init__(self, section: SlurmSection, size: int, options: Mapping[str, Any]) -> None:
        self.size, self._section, self._options = size, section, dict(options)
        self._opening = asyncio.Lock()
        self._listener: Listener | None = None
        self._jobs: dict[int, Any] = {}
        self._held: dict[int, _Held] = {}
        self._refused: str | None = None
        self._closing = threading.Event()
        self._outgoing: queue.Queue[tuple[_Held, Any]] = queue.Queue()
        self._empty_since: float | None = None
        self._key = os.urandom(32)

    async def open(self) -> None:
        """As `Executor.open`.

        Raises:
            MissingExtraError: submitit is not installed.
            BackendError: there is no Slurm here, or its folder cannot be used.
        """
        async with self._opening:
            if self._listener is None:
                await asyncio.to_thread(self._begin)

    def _begin(self) -> None:
        try:
            import submitit
        except ImportError:
            raise MissingExtraError("executor: slurm", "slurm", "submitit") from None
        section = self._section
        folder = Path(os.path.realpath(at_home(section.folder)))
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._executor = submitit.AutoExecutor(
                folder / "jobs", cluster=section.cluster, slurm_max_num_timeout=_TIMEOUTS
            )
        except (OSError, RuntimeError) as error:
            raise BackendError(f"executor: slurm: {error}") from error
        wanted: dict[str, Any] = {
            "name": "windowshift",
            "timeout_min": section.minutes,
            "cpus_per_task": section.cpus,
            "gpus_per_node": section.gpus,
        }
        if section.cluster == "slurm":
            wanted |= {f"slurm_{name}": value for name, value in section.parameters.items()}
        try:
            self._executor.update_parameters(**{name: value for name, value in wanted.items() if value is not None})
        except (TypeError, ValueError, NameError) as error:
            raise BackendError(f"slurm: parameters: {error}") from error
        self._url = str(folder / "artifacts")
        self._carrier = Dropbox(self._url)
        self._shipper = Shipper(self._carrier)
        here = section.host or ("127.0.0.1" if section.cluster == "local" else socket.getfqdn())
        listener = Listener((here, 0), backlog=max(16, self.size))
        self._address = (here, listener.address[1])
        self._listener = listener
        for work in (self._answer, self._send):
            threading.Thread(target=work, name=f"windowshift-slurm{work.__name__}", daemon=True).start()

    def hire(self, held: Sequence[Post]) -> list[Post]:
        """As `Executor.hire`: a post for each job that has none, and new jobs for those that ended."""
        if self._refused is not None:
            raise BackendError(f"the machines that Slurm gave take no part: {self._refused}")
        self._missed()
        mine = {one.number for one in self._held.values() if any(one.post is post for post in held)}
        free = [number for number in range(self.size) if number not in mine]
        gone = [number for number in free if number not in self._jobs or self._jobs[number].done()]
        if gone:
            try:
                with self._executor.batch():  # one array
                    submitted = {number: self._executor.submit(self._job(number)) for number in gone}
            except Exception as error:  # submitit raises what sbatch said
                raise BackendError(f"Slurm took no job: {str(error).strip()[:300]}") from error
            self._jobs |= submitted
        found: list[Post] = [self._post(number) for number in free]
        self._waited(held)
        return found

    def _missed(self) -> None:
        """Jobs that ended and never called leave their posts: nobody else says so."""
        for held in list(self._held.values()):
            if held.connection is None and not held.ended and self._jobs[held.number].done():
                held.post.heard(None)

    def _job(self, number: int) -> StationJob:
        return StationJob(number, self._address, self._key, self._url, self._options)

    def _waited(self, held: Sequence[Post]) -> None:
        if any(post.ready for post in held) or not held:
            self._empty_since = None
            return
        self._empty_since = self._empty_since or time.monotonic()
        if time.monotonic() - self._empty_since > self._section.patience:
            raise BackendError(
                f"no job of Slurm started within {self._section.patience:g} seconds: look at  squeue --me , ask for "
                f"less under  slurm , or read the jobs' logs in {self._section.folder}/jobs; run again to go on"
            )

    def _post(self, number: int) -> StationPost:
        held = _Held(number)

        def ship(message: Any) -> None:
            if held.ended or held.connection is None:
                raise OSError("the job ended")
            self._outgoing.put((held, message))

        def stop() -> str:
            held.ended = True
            if held.connection is not None:
                held.connection.close()
            if self._held.get(number) is held:
                del self._held[number]
            return f"its job ended: its log is in {self._section.folder}/jobs"

        held.post = StationPost(f"job {number}", self._carrier, ship, stop)
        self._held[number] = held
        return held.post

    def refuse(self, post: Post, reason: str) -> None:
        """As `Executor.refuse`: Slurm chooses machines, so that one that is unfit speaks for all."""
        self._refused = f"{post.where}: {reason}"

    async def aclose(self) -> None:
        """As `Executor.aclose`: jobs are cancelled."""
        self._closing.set()
        if self._listener is None:
            return
        await asyncio.to_thread(self._let_go)

    def _let_go(self) -> None:
        assert self._listener is not None
        self._listener.close()
        for job in self._jobs.values():
            if not job.done():
                job.cancel(check=False)

    # -- threads ------------------------------------------------------------------------------------------

    def _answer(self) -> None:
        """Take calls of jobs, each in a thread of its own: one that says nothing keeps no other one waiting."""
        assert self._listener is not None
        while not self._closing.is_set():
            try:
                connection = self._listener.accept()
            except OSError:
                if self._closing.is_set():
                    return
                continue
            threading.Thread(target=self._called, args=(connection,), daemon=True).start()

    def _called(self, connection: Connection) -> None:
        try:
            _read_within(connection, _CALL_SECONDS)
            # As `Listener.accept` does where it has the key, but for the time that a caller may take.
            deliver_challenge(connection, self._key)
            answer_challenge(connection, self._key)
            call = connection.recv()
            _read_within(connection, 0)
            keep_alive(connection)
        except Exception:  # whatever a stranger's bytes may raise, `AssertionError` among it
            log.warning("somebody else called the driver's port: not answered")
            connection.close()
            return
        held = self._held.get(call.number) if isinstance(call, Call) else None
        if held is None or held.connection is not None:
            connection.close()  # another job has its place by now
            return
        held.connection = connection
        self._listen(held, connection)

    def _listen(self, held: _Held, connection: Connection) -> None:
        while True:
            try:
                got = connection.recv()
            except (EOFError, OSError, TypeError):  # TypeError: closed meanwhile
                got = None
            except Exception as error:  # whatever reading a message may raise: nothing after it can be read
                log.warning("%s is not understood any more: %r", held.post.where, error)
                got = None
            if isinstance(got, Farewell):
                held.post.lost = True
                got = None
            held.post.heard(got)
            if got is None:
                return

    def _send(self) -> None:
        while not self._closing.is_set():
            try:
                held, message = self._outgoing.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if held.ended or held.connection is None:
                continue
            try:
                held.connection.send(self._shipper.shipment(message) if isinstance(message, Order) else message)
            except Exception as error:  # whatever a file or a model may raise: the thread goes on
                if isinstance(message, Order) and not held.ended:
                    held.post.heard(unshipped(message, error))


def _read_within(connection: Connection, seconds: int) -> None:
    """Have reading from a socket fail after so many seconds; 0 for never."""
    with socket.socket(fileno=os.dup(connection.fileno())) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", seconds, 0))
