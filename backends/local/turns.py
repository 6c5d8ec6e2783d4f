"""One compute thread that takes turns between streams of work."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")
SLICE_SECONDS = 0.25
FLUSH_SECONDS = 0.05


class _Stream(Generic[T]):
    """Work in progress: a generator of small steps, and the queue its results go to."""

    def __init__(self, start: Callable[[], Iterator[Sequence[T]]], loop: asyncio.AbstractEventLoop) -> None:
        self.start = start
        self.steps: Iterator[Sequence[T]] | None = None
        self.loop = loop
        self.queue: asyncio.Queue[list[T] | BaseException | None] = asyncio.Queue()
        self.ended = asyncio.Event()
        self.cancelled = threading.Event()
        self._held: list[T] = []
        self._flushed = 0.0

    def advance(self, until: float) -> bool:
        """Run steps until the clock passes `until`; False once there is nothing more to run."""
        try:
            if self.steps is None:
                self.steps = iter(self.start())
            while not self.cancelled.is_set():
                self._held.extend(next(self.steps))
                now = time.monotonic()
                if self._held and now - self._flushed >= FLUSH_SECONDS:
                    self._flush(now)
                if now >= until:
                    return True
            return False
        except StopIteration:
            return False
        except BaseException as error:  # handed to the consumer, who is in another thread
            self._flush(0.0)
            self._post(self.queue.put_nowait, error)
            return False

    def finish(self) -> None:
        """Close the generator, so that what it holds is given back, and tell the consumer."""
        try:
            close = getattr(self.steps, "close", None)
            if close is not None:
                close()
        finally:
            self._flush(0.0)
            self._post(self.queue.put_nowait, None)
            self._post(self.ended.set)

    def _flush(self, now: float) -> None:
        held, self._held, self._flushed = self._held, [], now
        if held:
            self._post(self.queue.put_nowait, held)

    def _post(self, call: Callable[..., Any], *args: Any) -> None:
        try:
            self.loop.call_soon_threadsafe(call, *args)
        except RuntimeError:  # the consumer's event loop has ended: nobody is left to tell
            self.cancelled.set()


class Turns:
    """Runs generators of small steps in one thread, a time slice each, round and round.

    One thread is the lock: a step never overlaps another, so whatever a step sets on the shared
    model (adapter in force, weights) holds until the step ends. A generator that needs such state
    sets it at the start of every step. One thread also keeps one OpenMP pool warm.
    """

    def __init__(self, slice_seconds: float = SLICE_SECONDS) -> None:
        self._slice = slice_seconds
        self._waiting: OrderedDict[str, deque[_Stream[Any]]] = OrderedDict()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    async def stream(self, start: Callable[[], Iterator[Sequence[T]]], kind: str = "") -> AsyncGenerator[T, None]:
        """Yield what the steps of `start()` give, as they give it.

        Kinds have their turns one after another, however many streams of one there are, and so have the streams
        of a kind.

        Closing the iterator, or cancelling the task that reads it, ends the work after the step in
        progress and waits for that.
        """
        work: _Stream[T] = _Stream(start, asyncio.get_running_loop())
        self._add(work, kind)
        try:
            while (got := await work.queue.get()) is not None:
                if isinstance(got, BaseException):
                    raise got
                for item in got:
                    yield item
        finally:
            work.cancelled.set()
            await work.ended.wait()

    async def aclose(self) -> None:
        """End all streams after their step in progress, then the thread."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        thread = self._thread
        if thread is not None:
            await asyncio.to_thread(thread.join)

    def _add(self, work: _Stream[Any], kind: str) -> None:
        with self._wake:
            if self._closed:
                raise RuntimeError("this backend was closed")
            self._waiting.setdefault(kind, deque()).append(work)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="windowshift-compute", daemon=True)
                self._thread.start()
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closed:
                    self._wake.wait()
                if not self._waiting:
                    return
                if self._closed:
                    for left in (each for streams in self._waiting.values() for each in streams):
                        left.cancelled.set()
                kind = next(iter(self._waiting))
                streams = self._waiting.pop(kind)
                work = streams.popleft()
                if streams:
                    self._waiting[kind] = streams  # behind the others
            if work.advance(time.monotonic() + self._slice):
                with self._wake:
                    self._waiting.setdefault(kind, deque()).append(work)
            else:
                work.finish()
