"""Concurrent chat requests, handed to the backend together."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import cast

from windowshift.backends.serve.api_error import ApiError
from windowshift.core.contract import sanitise
from windowshift.core.contract.backend import Backend
from windowshift.core.contract.errors import WindowshiftError
from windowshift.core.contract.generation import Completion, GenerateRequest

GATHER_SECONDS = 0.005  # without a new request
GATHER_AT_MOST = 0.1
FULL = 64
PATIENCE_SECONDS = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class _Wanted:
    """A completion that somebody waits for."""

    request: GenerateRequest
    answer: asyncio.Future[Completion]


class ChatQueue:
    """Collects requests while the backend is at work, and hands over everything that waits in one call.

    A completion does not depend on what shares its batch, so clients see no difference but speed. A pass of
    the model costs about the same for one row as for many, so a second call beside the first begins only when
    a full batch waits, or somebody has waited long.

    Args:
        backend: what answers.
        calls: calls of the backend at once: as many as it has workers.
        waiting: completions that may wait or be in work; more is refused.
    """

    def __init__(self, backend: Backend, *, calls: int, waiting: int) -> None:
        self._backend, self._calls, self._most = backend, calls, waiting
        self._waiting: deque[_Wanted] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = 0

    async def answer(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        """Answer requests, in their order. Cancelling it gives up what has not been handed over yet.

        Raises:
            ApiError: too much waits already, or the backend failed.
        """
        if self._open + len(requests) > self._most:
            raise ApiError(
                429,
                f"{self._open} completions are waiting or in work, of at most {self._most}: try again later",
                code="rate_limit_exceeded",
                headers={"retry-after": "1"},
            )
        loop = asyncio.get_running_loop()
        wanted = [_Wanted(request, loop.create_future()) for request in requests]
        self._waiting.extend(wanted)
        self._open += len(wanted)
        if not self._tasks or len(self._waiting) >= FULL:
            self._begin()
        else:
            loop.call_later(PATIENCE_SECONDS, self._hurry, wanted[0])
        try:
            return list(await asyncio.gather(*(each.answer for each in wanted)))
        finally:
            self._open -= len(wanted)
            for each in wanted:
                each.answer.cancel()

    async def aclose(self) -> None:
        """Stop; those who wait are told."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        _tell(self._waiting, ApiError(503, "the server is going down"))

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
                batch = {str(number): each for number, each in enumerate(self._waiting) if not each.answer.done()}
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
        requests = [replace(each.request, key=key) for key, each in batch.items()]
        error = ApiError(500, "the backend gave no answer")
        try:
            async with aclosing(self._backend.generate(requests)) as completions:
                async for completion in completions:
                    answer = batch[completion.key].answer
                    if not answer.done():
                        answer.set_result(completion)
        except WindowshiftError as raised:
            error = ApiError(500, str(raised))
        except asyncio.CancelledError:
            error = ApiError(503, "the server is going down")
            raise
        except Exception as raised:
            error = ApiError(500, f"the backend failed: {type(raised).__name__}")
            sys.stderr.write(
                f"windowshift serve: the backend failed on a batch of chats: {sanitise.line(repr(raised))}\n"
            )
        finally:
            _tell(batch.values(), error)


def _tell(wanted: Iterable[_Wanted], error: ApiError) -> None:
    """Give an error to those who still wait."""
    for each in wanted:
        if not each.answer.done():
            each.answer.set_exception(error)
