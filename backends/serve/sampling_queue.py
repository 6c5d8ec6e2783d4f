"""Concurrent requests for text, handed to the backend together."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import cast

from windowshift.backends.serve.api_error import ApiError
from windowshift.core.contract import sanitise
from windowshift.core.contract.backend import StreamingBackend
from windowshift.core.contract.errors import WindowshiftError
from windowshift.core.contract.generation import Completion, GenerateRequest, WrittenPiece

GATHER_SECONDS = 0.005  # without a new request
GATHER_AT_MOST = 0.1
FULL = 64
PATIENCE_SECONDS = 2.0


@dataclass(slots=True, eq=False)
class _Wanted:
    """A completion that somebody waits for, and where it goes."""

    request: GenerateRequest
    index: int
    results: asyncio.Queue[tuple[int, WrittenPiece | Completion | ApiError]]
    handed_over: bool = False
    ended: bool = False  # answered, failed, or nobody waits for it any more

    def give(self, result: WrittenPiece | Completion | ApiError) -> None:
        """Pass something on to who waits."""
        if not self.ended:
            self.ended = not isinstance(result, WrittenPiece)
            self.results.put_nowait((self.index, result))


class SamplingQueue:
    """Collects requests while the backend is at work, and hands over everything that waits in one call.

    A completion does not depend on what shares its batch, so clients see no difference but speed. A pass of
    the model costs about the same for one row as for many, so a second call beside the first begins only when
    a full batch waits, or somebody has waited long.

    Args:
        backend: what answers.
        calls: calls of the backend at once: as many as it has workers.
        waiting: completions that may wait or be in work; more is refused.
    """

    def __init__(self, backend: StreamingBackend, *, calls: int, waiting: int) -> None:
        self._backend, self._calls, self._most = backend, calls, waiting
        self._waiting: deque[_Wanted] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = 0
        self._closed = False
        self._number = 0  # of the last key: keys are told apart among all calls under way

    @property
    def open(self) -> int:
        """Completions that wait or are in work."""
        return self._open

    async def answer(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        """Answer requests, in their order. Cancelling it ends the work on them.

        Raises:
            ApiError: too much waits already, or the backend failed.
        """
        async with aclosing(self.follow(requests)) as results:
            found = {index: result async for index, result in results if isinstance(result, Completion)}
        return [found[index] for index in range(len(requests))]

    async def follow(
        self, requests: Sequence[GenerateRequest]
    ) -> AsyncGenerator[tuple[int, WrittenPiece | Completion], None]:
        """Answer requests; yields completions, and pieces of those that ask for them, with their places in `requests`.

        Closing it ends the work on what is not answered yet.

        Raises:
            ApiError: too much waits already, or the backend failed.
        """
        wanted = self._enter(requests)
        left = len(wanted)
        try:
            while left:
                index, result = await wanted[0].results.get()
                if isinstance(result, ApiError):
                    raise result
                if isinstance(result, Completion):
                    left -= 1
                yield index, result
        finally:
            self._leave(wanted)

    def give_up(self) -> None:
        """Stop; those who wait are told."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        _tell(self._waiting, _going_down())

    async def aclose(self) -> None:
        """Stop, and wait until the backend has let go."""
        self.give_up()
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    def _enter(self, requests: Sequence[GenerateRequest]) -> list[_Wanted]:
        if self._closed:
            raise _going_down()
        if len(requests) > self._most:
            raise ApiError(400, f"{len(requests)} completions are more than the {self._most} that this server takes")
        if self._open + len(requests) > self._most:
            raise ApiError(
                429,
                f"{self._open} completions are waiting or in work, of at most {self._most}: try again later",
                code="rate_limit_exceeded",
                headers={"retry-after": "1"},
            )
        loop = asyncio.get_running_loop()
        results: asyncio.Queue[tuple[int, WrittenPiece | Completion | ApiError]] = asyncio.Queue()
        wanted: list[_Wanted] = []
        for index, request in enumerate(requests):
            self._number += 1
            wanted.append(_Wanted(replace(request, key=str(self._number)), index, results))
        self._waiting.extend(wanted)
        self._open += len(wanted)
        if not self._tasks or len(self._waiting) >= FULL:
            self._begin()
        else:
            loop.call_later(PATIENCE_SECONDS, self._hurry, wanted[0])
        return wanted

    def _leave(self, wanted: Sequence[_Wanted]) -> None:
        """Nobody waits for these any more."""
        self._open -= len(wanted)
        under_way = [each.request.key for each in wanted if each.handed_over and not each.ended]
        for each in wanted:
            each.ended = True
        if under_way:
            self._backend.give_up(under_way)

    def _begin(self) -> None:
        if len(self._tasks) < self._calls:
            task = asyncio.create_task(self._work())
            self._tasks.add(task)

    def _hurry(self, wanted: _Wanted) -> None:
        if wanted in self._waiting:
            self._begin()

    async def _work(self) -> None:
        """Call the backend until nothing waits."""
        try:
            while self._waiting:
                await self._gather()
                batch = {each.request.key: each for each in self._waiting if not each.ended}
                self._waiting.clear()
                await self._call(batch)
        finally:
            # Here and not in a callback: a request that comes between the two would find nobody at work.
            self._tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _gather(self) -> None:
        """Wait while requests come in: also those that follow on the answers which were just given."""
        end = asyncio.get_running_loop().time() + GATHER_AT_MOST
        seen = -1
        while seen < len(self._waiting) < FULL and asyncio.get_running_loop().time() < end:
            seen = len(self._waiting)
            await asyncio.sleep(GATHER_SECONDS)

    async def _call(self, batch: dict[str, _Wanted]) -> None:
        """Answer a batch; whatever happens, nobody of it is left waiting."""
        error = ApiError(500, "the backend gave no answer")
        for each in batch.values():
            each.handed_over = True
        try:
            async with aclosing(self._backend.stream([each.request for each in batch.values()])) as results:
                async for result in results:
                    batch[result.key].give(result)
        except WindowshiftError as raised:
            error = ApiError(500, str(raised))
        except asyncio.CancelledError:
            error = _going_down()
            raise
        except Exception as raised:
            error = ApiError(500, f"the backend failed: {type(raised).__name__}")
            sys.stderr.write(f"windowshift serve: the backend failed on a batch: {sanitise.line(repr(raised))}\n")
        finally:
            _tell(batch.values(), error)


def _going_down() -> ApiError:
    return ApiError(503, "the server is going down: ask again once it is back", code="going_down")


def _tell(wanted: Iterable[_Wanted], error: ApiError) -> None:
    """Give an error to those who still wait."""
    for each in wanted:
        each.give(error)
