"""``/v1/chat/completions``."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from windowshift.backends.serve.body import parse
from windowshift.backends.serve.chat_answer import ChatAnswer
from windowshift.backends.serve.chat_request import ChatRequest
from windowshift.backends.serve.service import Service, service

T = TypeVar("T")
GONE = 499  # the client went away; nobody reads this


async def complete(request: Request) -> Response:
    """Answer a chat. A stream begins when the answer is there: a failure still has its own status."""
    wanted = await parse(request, ChatRequest)
    answered = await _while_connected(request, answer(service(request), wanted))
    if answered is None:
        return Response(status_code=GONE)
    if not wanted.stream:
        return JSONResponse(answered.to_api())
    usage = wanted.stream_options is not None and wanted.stream_options.include_usage
    return StreamingResponse(
        answered.stream(usage), media_type="text/event-stream", headers={"cache-control": "no-store"}
    )


async def answer(here: Service, wanted: ChatRequest) -> ChatAnswer:
    """Answer a checked request.

    Raises:
        ApiError: the model is not there, the prompt does not fit, too much waits, or the backend failed.
    """
    model = here.models.get(wanted.model)
    wanted.refuse(here.limits)
    completions = await here.chats.answer(wanted.requests(model.model, wanted.model, model.default_tokens))
    return ChatAnswer.of(wanted, completions, here.fingerprints[model.base])


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
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


ROUTES = [Route("/v1/chat/completions", complete, methods=["POST"])]
