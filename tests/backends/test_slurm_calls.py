"""What a driver does with calls that jobs of Slurm make, do not make, or that strangers make in their place."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import AsyncGenerator, Callable
from multiprocessing.connection import Client, Pipe
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from windowshift.backends.local.cluster import slurm_executor, slurm_station
from windowshift.backends.local.cluster.freight import Hello, StationPost
from windowshift.backends.local.cluster.installation import installation
from windowshift.backends.local.cluster.options import SlurmSection
from windowshift.backends.local.cluster.slurm_executor import SlurmExecutor
from windowshift.backends.local.cluster.slurm_station import Call, Farewell, StationJob
from windowshift.backends.local.messages import Ready

pytest.importorskip("submitit")


class Job:
    """What submitit knows of a job."""

    def __init__(self, *, done: bool) -> None:
        self._done = done

    def done(self) -> bool:
        return self._done

    def cancel(self, check: bool = True) -> None:
        pass


class Heard(list[Any]):
    """What a post said, and a wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.news = threading.Semaphore(0)

    def take(self, got: Any) -> None:
        self.append(got)
        self.news.release()

    def wait(self) -> Any:
        assert self.news.acquire(timeout=30)
        return self[-1]


@pytest_asyncio.fixture
async def executor(tmp_path: Path) -> AsyncGenerator[SlurmExecutor]:
    made = SlurmExecutor(SlurmSection(cluster="local", folder=str(tmp_path)), 2, {})
    await made.open()
    yield made
    await made.aclose()


def post_of(executor: SlurmExecutor, number: int, *, done: bool) -> tuple[StationPost, Heard]:
    executor._jobs[number] = Job(done=done)
    post, heard = executor._post(number), Heard()
    post.listen(heard.take)
    return post, heard


async def test_a_job_that_ended_and_never_called_leaves_its_post(executor: SlurmExecutor) -> None:
    ended, of_ended = post_of(executor, 0, done=True)
    waiting, of_waiting = post_of(executor, 1, done=False)
    assert executor.hire([ended, waiting]) == []
    assert list(of_ended) == [None]
    assert list(of_waiting) == []
    assert "its log is in" in ended.end()


def say(text: bytes) -> Callable[[socket.socket], None]:
    return lambda caller: caller.sendall(text)


@pytest.mark.parametrize(
    "stranger",
    [lambda caller: None, say(b"GET / HTTP/1.1\r\n\r\n"), say(b"\0\0\0\4ping"), lambda caller: caller.close()],
    ids=["silent", "of the web", "without a key", "gone at once"],
)
async def test_a_stranger_keeps_no_job_waiting(
    executor: SlurmExecutor, stranger: Callable[[socket.socket], None]
) -> None:
    _, heard = post_of(executor, 0, done=False)
    with socket.create_connection(executor._address) as caller:
        stranger(caller)
        with Client(executor._address, authkey=executor._key) as job:
            job.send(Call(0))
            job.send(Hello("there", installation()))
            assert heard.wait() == Ready("there")


async def test_a_silent_caller_is_let_go(executor: SlurmExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_executor, "_CALL_SECONDS", 1)
    with socket.create_connection(executor._address, timeout=30) as caller:
        while caller.recv(4096):  # the challenge, and then the end
            pass


async def test_what_cannot_be_read_ends_a_post(executor: SlurmExecutor) -> None:
    _, heard = post_of(executor, 0, done=False)
    with Client(executor._address, authkey=executor._key) as job:
        job.send(Call(0))
        job.send_bytes(b"two messages that mixed")
        assert heard.wait() is None


def test_a_job_forgets_its_call_before_it_says_farewell(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver hangs up at once; a job that took that for the driver's end would end and not be queued again."""
    monkeypatch.setattr(slurm_station.threading.Timer, "start", lambda self: None)
    here, there = Pipe()
    job = StationJob(3, ("127.0.0.1", 1), b"k", "folder", {})
    job._connection, job._sending = here, threading.Lock()
    known = []
    send = here.send
    monkeypatch.setattr(here, "send", lambda message: (known.append(job._connection), send(message)))
    again = job.checkpoint().function
    assert known == [None]
    assert there.recv() == Farewell()
    assert again == StationJob(3, ("127.0.0.1", 1), b"k", "folder", {})
    job._send(here, Ready("here"))  # a thread that comes too late: nothing, and no error
    with pytest.raises(EOFError):
        there.recv()


def test_a_farewell_waits_for_a_message_that_is_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_station.threading.Timer, "start", lambda self: None)
    here, there = Pipe()
    job = StationJob(3, ("127.0.0.1", 1), b"k", "folder", {})
    job._connection, job._sending = here, threading.Lock()
    long = Ready(os.urandom(4_000_000).hex())  # more than a socket holds: it is sent while it is read
    sending = threading.Thread(target=job._send, args=(here, long))
    sending.start()
    while not job._sending.locked():
        pass
    leaving = threading.Thread(target=job.checkpoint)
    leaving.start()
    assert there.recv() == long
    assert there.recv() == Farewell()
    sending.join()
    leaving.join()
