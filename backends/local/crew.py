"""A crew of workers: processes of this machine, or of others.

On one machine it is for models so small that one core is all that one of them can use. Threads do not help such a
model (its operations are too short to split, and Python's lock is held between them), so each core gets a process
with a copy of its own. On many machines it is for any model. What a request or a job comes to does not depend on
which worker takes it, so another one takes over what a killed worker was at.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from windowshift.backends.local.given_up import GivenUp
from windowshift.backends.local.messages import Cancel, Ended, GiveUp, Order, Ready, Unfit, WorkerMessage, Yielded
from windowshift.backends.local.post import Executor, Post
from windowshift.core.contract.backoff import Backoff
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Completion
from windowshift.core.contract.inside import Differentiated, InsideFailed, Projected
from windowshift.core.contract.training import Trained, TrainFailed, TrainMessage
from windowshift.core.contract.vector_job import VectorFailed, VectorMade

log = logging.getLogger("windowshift.local")

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
"""Seconds before a worker that died is replaced, where none gave a result since the last one did."""
DEATHS_A_PORTION = 2
"""What a killed worker was at goes to another one; a portion that more than so many died of is given up."""
AT_ONCE = {"train": 8, "generate": 3}
"""Portions that a worker has at a time. They share its passes: more adapters than so many gain nothing on one core, and
so many portions of rows keep its decode batch full while the first ones end."""
LOOK_SECONDS = 1.0
"""How often an elastic executor is asked for further posts while there is work."""
_LAST = (Completion, Trained, TrainFailed, VectorMade, VectorFailed, Projected, Differentiated, InsideFailed)
"""What is yielded last of the request or job with that key."""

Lane = Literal["generate", "stream", "train", "make_vectors", "look_inside"]


@dataclass(eq=False)
class _Worker:
    """One worker and how many portions of each lane it has; `useful` once it gave something out."""

    post: Post
    ready: bool
    useful: bool = False
    busy: Counter[str] = field(default_factory=Counter)


@dataclass(eq=False)
class _Portion:
    """A part of a call: the requests or jobs that have not ended yet, who is at them, and how many died of it."""

    items: Sequence[Any]
    worker: _Worker | None = None
    deaths: int = 0


@dataclass(eq=False)
class _Call:
    """One call of a method: the portions that wait or are in work, and where results go."""

    lane: Lane
    waiting: deque[_Portion]
    results: asyncio.Queue[Yielded | Ended]
    given_up: GivenUp | None = None
    open: dict[int, _Portion] = field(default_factory=dict)
    closed: bool = False


class Crew:
    """Starts workers at the first call and deals portions of work to whoever is free.

    Each worker holds at most one portion of each lane (generate, stream, train, ...) at a time, or as many as
    `AT_ONCE` says, which share its passes; its own backend lets lanes take turns. A worker that dies is
    replaced, and what it was at begins again where it was: completions that were given out stay, a training goes on
    from its saved state.

    Args:
        executor: who has posts for the workers.
    """

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self._workers: list[_Worker] = []
        self._calls: dict[int, _Call] = {}
        self._waiting: list[_Call] = []
        self._number = 0
        self._deaths = 0  # since a worker last gave a result
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self._replacing: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None

    @property
    def size(self) -> int:
        """How many workers there is room for now."""
        return self.executor.size

    async def open(self) -> None:
        """Reach the executor; free where that was done.

        Raises:
            WindowshiftError: as `Executor.open`.
        """
        await self.executor.open()

    async def stream(
        self, lane: Lane, portions: Sequence[Sequence[Any]], given_up: GivenUp | None = None
    ) -> AsyncGenerator[Any, None]:
        """Yield what the workers yield for every portion, in the order of arrival.

        Args:
            lane: the method.
            portions: what it is called with, each by whoever is free.
            given_up: requests in it are not dealt out any more.

        Raises:
            BackendError: workers died of the same work, or as soon as they began, again and again.
        """
        await self.open()
        self._start()
        call = _Call(lane, deque(_Portion(list(items)) for items in portions), asyncio.Queue(), given_up)
        self._waiting.append(call)
        self._deal()
        if self.executor.elastic and self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
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
            while not call.results.empty():  # given before a worker died that had nothing left to do
                if isinstance(got := call.results.get_nowait(), Yielded):
                    for item in got.items:
                        yield item
        finally:
            call.closed = True
            call.waiting.clear()
            self._waiting.remove(call)
            await self._cancel(call)

    def give_up(self, keys: Sequence[str]) -> None:
        """Tell the workers of requests that nobody waits for any more."""
        for worker in self._workers:
            try:
                worker.post.send(GiveUp(keys))
            except OSError:
                continue  # it died, and what it was at is dealt out anew without them

    async def aclose(self) -> None:
        """End all workers."""
        self._stop_replacing()
        if self._looking is not None:
            self._looking.cancel()
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.post.close()
        for worker in workers:
            await asyncio.to_thread(worker.post.end)
        await self.executor.aclose()

    def _start(self) -> None:
        """Start the workers that are missing."""
        self._stop_replacing()
        loop = asyncio.get_running_loop()
        for post in self.executor.hire([worker.post for worker in self._workers]):
            worker = _Worker(post, post.ready)
            self._workers.append(worker)
            post.listen(partial(self._heard, loop, worker))

    def _look(self) -> None:
        """See whether there is room for further workers, as long as there is work."""
        self._looking = None
        if not self._waiting:
            return
        if self._replacing is None:  # what died is replaced in its time
            self._replace()
        self._looking = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _heard(self, loop: asyncio.AbstractEventLoop, worker: _Worker, got: WorkerMessage | None) -> None:
        """Hand on what another thread heard."""
        with suppress(RuntimeError):  # the event loop is closed: nobody waits
            loop.call_soon_threadsafe(self._take, worker, got)

    def _take(self, worker: _Worker, got: WorkerMessage | None) -> None:
        if got is None:
            self._bury(worker)  # nothing to do where it was ended from here
            return
        if isinstance(got, Ready):
            worker.ready = True
            self._deal()
            return
        if isinstance(got, Unfit):
            log.warning("%s takes no part: %s", worker.post.where, got.reason)
            self.executor.refuse(worker.post, got.reason)
            self._bury(worker, died=False)
            return
        worker.useful = True
        call = self._calls.get(got.number)
        if call is not None:
            if isinstance(got, Yielded):
                self._deaths = 0
                self._backoff.succeeded()
                ended = {item.key for item in got.items if isinstance(item, _LAST)}
                portion = call.open.get(got.number)
                if ended and portion is not None:
                    portion.items = [item for item in portion.items if item.key not in ended]
            call.results.put_nowait(got)
        if isinstance(got, Ended):
            if self._calls.pop(got.number, None) is not None and call is not None:
                worker.busy[call.lane] -= 1
            self._deal()

    def _bury(self, worker: _Worker, *, died: bool = True) -> None:
        """Replace a worker that died, or that is not wanted any more, and give what it was at to others."""
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        worker.post.close()
        how = worker.post.end()  # dead or dying: nobody hears it any more
        if worker.post.lost:
            log.warning("%s went away: what a worker was at there goes to others", worker.post.where)
        died = died and not worker.post.lost
        self._deaths += died
        hopeless = self._deaths > 2 * self.size + DEATHS_A_PORTION
        for number, call in list(self._calls.items()):
            portion = call.open.get(number)
            if portion is None or portion.worker is not worker:
                continue
            del self._calls[number]
            portion.deaths += died
            if hopeless or portion.deaths > DEATHS_A_PORTION:
                error = (
                    f"worker processes of backend 'local' died again and again ({how}), the last one of "
                    "this: give the machine more memory, or the backend fewer  workers; run again to go on"
                )
                call.results.put_nowait(Ended(number, error))
                continue
            del call.open[number]
            if portion.items and not call.closed:
                call.waiting.appendleft(portion)
                # Where it goes on from is older than where it was: that is worth a word.
                if call.lane == "train" and (died or worker.post.lost):
                    text = f"a worker process died ({how}); the training goes on from the state it saved last"
                    messages = [TrainMessage(item.key, text) for item in portion.items]
                    call.results.put_nowait(Yielded(number, messages))
            call.results.put_nowait(Ended(number))  # its reader looks again what is left
        if not hopeless:
            self._deal()
            if self._replacing is None and (died or self._waiting):
                pause = self._backoff.failed() if died else FIRST_PAUSE
                self._replacing = asyncio.get_running_loop().call_later(pause, self._replace)
        elif not self._workers:
            for call in self._waiting:
                call.results.put_nowait(Ended(0, f"every worker process of backend 'local' died ({how})"))
            self._deaths = 0  # the next call starts new ones

    def _replace(self) -> None:
        try:
            self._start()
        except BackendError as error:
            for call in self._waiting:
                call.results.put_nowait(Ended(0, str(error)))
            return
        self._deal()

    def _stop_replacing(self) -> None:
        if self._replacing is not None:
            self._replacing.cancel()
            self._replacing = None

    def _deal(self) -> None:
        for call in self._waiting:
            places = AT_ONCE.get(call.lane, 1)
            for held in range(places):  # nobody gets a second one before everybody has a first
                for worker in self._workers:
                    if not worker.ready or not call.waiting or worker.busy[call.lane] > held:
                        continue
                    self._number += 1
                    portion = call.waiting.popleft()
                    portion.worker = worker
                    if call.given_up:
                        portion.items = [item for item in portion.items if item.key not in call.given_up]
                    worker.busy[call.lane] += 1
                    call.open[self._number] = portion
                    self._calls[self._number] = call
                    try:
                        worker.post.send(Order(self._number, call.lane, portion.items))
                    except OSError:
                        continue  # it died, and what it was given is taken back when that is heard

    async def _cancel(self, call: _Call) -> None:
        """Close a call's streams and wait until their workers have let go.

        One that gave nothing out yet may be loading for a while, and has nothing to lose: it is ended.
        """
        for number, portion in list(call.open.items()):
            if portion.worker is not None and not portion.worker.useful:
                self._bury(portion.worker, died=False)
                continue
            try:
                if portion.worker is not None:
                    portion.worker.post.send(Cancel(number))
            except OSError:
                continue  # it died, and said so
        while call.open:
            got = await call.results.get()
            if isinstance(got, Ended):
                call.open.pop(got.number, None)
