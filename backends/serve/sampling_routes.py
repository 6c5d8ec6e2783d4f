"""``/v1/chat/completions``, ``/v1/completions`` and ``/v1/responses``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Send

from windowshift.backends.serve.api_error import ApiError
from windowshift.backends.serve.body import parse
from windowshift.backends.serve.choice import Choice, Usage
from windowshift.backends.serve.draft import Draft
from windowshift.backends.serve.request_log import LogEntry, entry
from windowshift.backends.serve.sampling_kinds import KINDS
from windowshift.backends.serve.sampling_request import SamplingRequest
from windowshift.backends.serve.service import RunningServer, service
from windowshift.core.contract.generation import Completion, GenerateRequest, WrittenPiece

T = TypeVar("T")
GONE = 499  # the client went away; nobody reads this


def _endpoint(kind: type[SamplingRequest]) -> Callable[[Request], Awaitable[Response]]:
    async def sample(request: Request) -> Response:
        """Answer, whole or as a stream, for as long as the client waits for it.

        A stream begins with the first words: a failure before them still has its own status.
        """
        wanted = await parse(request, kind)
        here, log = service(request), entry(request.scope)
        log.asked(wanted)
        if not wanted.stream:
            answered = await _while_connected(request, answer(here, wanted, log))
            return Response(status_code=GONE) if answered is None else JSONResponse(answered)
        events = _events(here, wanted, log)
        first = await _while_connected(request, anext(events))
        if first is None:
            await events.aclose()
            return Response(status_code=GONE)
        return _Stream(first, events)

    return sample


async def answer(here: RunningServer, wanted: SamplingRequest, log: LogEntry | None = None) -> dict[str, Any]:
    """Answer a checked request with one object.

    Raises:
        ApiError: the model is not there, the prompt does not fit, too much waits, or the backend failed.
    """
    requests, fingerprint = _prepare(here, wanted)
    completions = await here.sampling.answer(requests)
    choices = [Choice.of(index, each, wanted.stops, wanted.PROMPT) for index, each in enumerate(completions)]
    usage = Usage.of(completions, wanted.choices)
    if log is not None:
        log.said(choices, usage)
    return wanted.writer(fingerprint).whole(choices, usage)


async def _events(here: RunningServer, wanted: SamplingRequest, log: LogEntry) -> AsyncGenerator[bytes, None]:
    """Answer a checked request with events; the first ones come together, once there is something to tell.

    Raises:
        ApiError: as `answer`, before the first event.
    """
    requests, fingerprint = _prepare(here, wanted)
    writer = wanted.writer(fingerprint)
    drafts = [Draft(index, wanted.stops) for index in range(len(requests))]
    choices: dict[int, Choice] = {}
    completions: dict[int, Completion] = {}
    begun = False
    try:
        async with aclosing(here.sampling.follow(requests)) as results:
            async for index, result in results:
                choice: Choice | None = None
                if isinstance(result, WrittenPiece):
                    delta = drafts[index].take(result)
                else:
                    completions[index] = result
                    choices[index] = choice = Choice.of(index, result, wanted.stops, wanted.PROMPT)
                    delta = drafts[index].end(choice)
                if delta is None and choice is None:
                    continue
                told = [] if begun else [*writer.begin(len(requests))]
                begun = True
                told += [] if delta is None else writer.more(delta)
                told += [] if choice is None else writer.end(choice)
                yield b"".join(told)
        found = [choices[index] for index in range(len(requests))]
        usage = Usage.of([completions[index] for index in range(len(requests))], wanted.choices)
        log.said(found, usage)
        yield b"".join(writer.finish(found, usage))
    except ApiError as error:
        if not begun:
            raise
        log.failed(error)
        yield b"".join(writer.fail(error))


def _prepare(here: RunningServer, wanted: SamplingRequest) -> tuple[list[GenerateRequest], str]:
    model = here.models.get(wanted.model)
    wanted.refuse(here.limits)
    return wanted.requests(model.model, model.default_tokens), here.fingerprints[model.base]


class _Stream(StreamingResponse):
    """A stream whose work ends with it, whatever ends it."""

    def __init__(self, first: bytes, events: AsyncGenerator[bytes, None]) -> None:
        self._events = events

        async def body() -> AsyncIterator[bytes]:
            yield first
            async for each in events:
                await asyncio.sleep(0)  # a stream that has much to tell lets others go on, and hears who left
                yield each

        super().__init__(body(), media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def stream_response(self, send: Send) -> None:
        """Send the events."""
        async with aclosing(self._events):
            await super().stream_response(send)


async def _while_connected(request: Request, work: Awaitable[T]) -> T | None:
    """Do work for as long as the client waits for it; None when it went away."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        for each in (task, gone):
            each.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await each


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


ROUTES = [Route(path, _endpoint(kind), methods=["POST"]) for path, kind in KINDS.items()]
