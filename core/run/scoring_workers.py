"""The workers of a slow scorer: threads, or processes that are ended at the time limit; never the event loop."""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from windowshift.core.contract.child import deaf_to_interrupts, python_module
from windowshift.core.contract.setting import BatchScorer, RowScorer, Sample, Score, Scores
from windowshift.core.run.scoring import FAILED, checked, failure, missing, score_row

START_SECONDS = 120.0
"""How long a process may take to import the scorer's module; apart from the scorer's own limit."""
TIMEOUTS_A_CALL = 3
"""A call that took too long is made again for each sample alone, until so many of them took too long, too."""
ROWS_A_CALL = 16
"""Of a row scorer that proved slow."""
MOST_DEATHS = 20
"""A process that died, or did not start, so many times in a row is not started again."""
_STARTS = threading.BoundedSemaphore(max(1, (os.cpu_count() or 1) // 2))
"""Processes that start at the same time: while each imports its scorer, others on the machine have their turns."""
STUCK_THREADS = 64
"""A thread cannot be ended: with so many that never came back, the scorer is not called any more."""


class TimeLimitError(Exception):
    """A call took longer than the scorer allows."""


class ScoringWorkers:
    """Calls one scorer, a few calls at once, each within its time limit.

    Args:
        scorer: a batch scorer; a row scorer that proved slow is called sample by sample in one thread.
    """

    def __init__(self, scorer: BatchScorer | RowScorer) -> None:
        self._scorer = scorer
        self.batch_size = max(1, scorer.batch_size) if isinstance(scorer, BatchScorer) else ROWS_A_CALL
        self.width = max(1, scorer.workers) if isinstance(scorer, BatchScorer) else 1
        self._timeout = scorer.timeout if isinstance(scorer, BatchScorer) else None
        self._processes: list[ScoringProcess] = []
        self._free: asyncio.Queue[ScoringProcess | None] = asyncio.Queue()
        for _ in range(self.width):
            worker = ScoringProcess(scorer) if isinstance(scorer, BatchScorer) and scorer.process else None
            self._free.put_nowait(worker)
            if worker is not None:
                self._processes.append(worker)
        self._stuck: list[threading.Thread] = []
        self._idle: list[CallThread] = []

    async def score(self, samples: Sequence[Sample]) -> list[dict[str, Score]]:
        """Score some samples, in their order; what goes wrong is a missing score with the reason."""
        try:
            return await self._call(samples)
        except TimeLimitError as error:
            reason, timeouts = f"{FAILED}{error}", 1
        except Exception as error:
            reason, timeouts = failure(error), 0
        if len(samples) == 1:
            return [missing(self._scorer, reason)]
        found: list[dict[str, Score]] = []
        for sample in samples:
            if timeouts > TIMEOUTS_A_CALL:
                found.append(missing(self._scorer, reason))
                continue
            try:
                found += await self._call([sample])
            except TimeLimitError as error:
                timeouts += 1
                found.append(missing(self._scorer, f"{FAILED}{error}"))
            except Exception as error:
                found.append(missing(self._scorer, failure(error)))
        return found

    def close(self) -> None:
        """End the processes; threads end with what they are at."""
        for thread in self._idle:
            thread.end()
        self._idle.clear()
        for worker in self._processes:
            worker.end()
        for worker in self._processes:
            worker.kill()

    async def _call(self, samples: Sequence[Sample]) -> list[dict[str, Score]]:
        scorer, found = self._scorer, list[Scores]()
        worker = await self._free.get()
        try:
            if worker is not None:
                found = await self._threaded(lambda: worker.call(samples, self._timeout), None)
            elif isinstance(scorer, BatchScorer):
                found = await self._threaded(lambda: call_batch(scorer, samples), self._timeout)
            else:
                found = await self._threaded(lambda: [score_row(scorer, one) for one in samples], None)
        finally:
            self._free.put_nowait(worker)
        if len(found) != len(samples):
            raise ValueError(f"it gave {len(found)} scores for {len(samples)} samples")
        return [checked(self._scorer, one) for one in found]

    async def _threaded(self, work: Callable[[], Any], timeout: float | None) -> Any:
        """Run something in a thread that is kept for the next call, unless it hangs."""
        self._stuck = [thread for thread in self._stuck if thread.is_alive()]
        if len(self._stuck) >= STUCK_THREADS:
            raise TimeLimitError(f"{len(self._stuck)} of its calls never came back")
        thread = self._idle.pop() if self._idle else CallThread(f"score {self._scorer.name}")
        future = thread.submit(work)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), timeout)
        except TimeoutError as error:
            if not future.done() or future.cancelled():  # else the scorer's own
                self._stuck.append(thread.thread)
                raise TimeLimitError(f"it took longer than {timeout:g} s") from error
            raise
        finally:
            if future.done() and not future.cancelled():
                self._idle.append(thread)
            else:
                thread.end()


class CallThread:
    """A daemon thread that makes one call after another: one that hangs must not keep the program from ending.

    To start a thread takes until it runs, which on a busy machine is long for an event loop: calls share them.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._run, daemon=True, name=name)
        self.thread.start()

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        """Have something done after what it is at."""
        future: Future[Any] = Future()
        self._calls.put((future, work))
        return future

    def end(self) -> None:
        """End after what it is at."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            future, work = call
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:  # SystemExit too: a scorer's exit() must not end the run
                future.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))
            del call, future, work  # what was scored is not held until the next call


def call_batch(scorer: BatchScorer, samples: Sequence[Sample]) -> list[Scores]:
    """Call a batch scorer where it may block; a coroutine runs on an event loop of its own."""
    found = scorer.score_batch(samples)
    if inspect.isawaitable(found):

        async def wait() -> Sequence[Scores]:
            return await found

        return list(asyncio.run(wait()))
    return list(found)


class ScoringProcess:
    """One process that holds a scorer and answers calls; started at the first one, and anew after it was ended."""

    def __init__(self, scorer: BatchScorer) -> None:
        self._scorer = scorer
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._deaths = 0  # since it last gave an answer

    def call(self, samples: Sequence[Sample], timeout: float | None) -> list[Scores]:
        """Have samples scored; blocks.

        Raises:
            TimeLimitError: it took longer than `timeout` seconds, and was ended.
            RuntimeError: what the scorer raised, or that its process died.
        """
        if self._deaths >= MOST_DEATHS:
            raise RuntimeError(f"its process died {self._deaths} times in a row and is not started again")
        connection = self._connection
        if connection is None:
            with _STARTS:
                connection = self._start()
        try:
            connection.send((list(samples), timeout))
            if not connection.poll(timeout):
                self.kill()
                raise TimeLimitError(f"it took longer than {timeout:g} s")
            found, problem = connection.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        self._deaths = 0
        if problem is not None:
            raise RuntimeError(problem)
        return list(found)

    def end(self) -> None:
        """Have the process end, and wait for nothing."""
        if self._process is not None:
            self._process.kill()

    def kill(self) -> None:
        """End the process, whatever it is at."""
        process, self._process = self._process, None
        connection, self._connection = self._connection, None
        if process is not None:
            process.kill()
            process.wait()
        if connection is not None:
            connection.close()

    def _start(self) -> Connection:
        ours, theirs = socket.socketpair()
        with theirs, deaf_to_interrupts():
            # -P: no module of the working folder stands in for one of the library's.
            command = python_module("windowshift.core.run.scoring_process", str(theirs.fileno()))
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        connection = self._connection = Connection(ours.detach())
        try:
            connection.send(sys.path)  # a scorer of a person's own is found as this process found it
            connection.send(self._scorer)
            if not connection.poll(START_SECONDS):
                self._deaths += 1
                self.kill()
                raise RuntimeError(f"its process did not start within {START_SECONDS:g} s")
            problem = connection.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        except Exception:  # it cannot be pickled
            self.kill()
            raise
        if problem is not None:
            self._deaths += 1
            self.kill()
            raise RuntimeError(f"its process could not load it: {problem}")
        return connection

    def _died(self) -> RuntimeError:
        self._deaths += 1
        code = None
        if self._process is not None:
            try:
                code = self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                code = None
        self.kill()
        return RuntimeError(f"its process died (exit code {code})")
