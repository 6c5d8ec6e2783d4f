"""A turnstile: kinds of requests that must not meet in one batch of vLLM go in turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

RequestKind = Literal["base", "adapter", "alone"]


class Turnstile:
    """One kind of request at a time; ``alone`` is one request at a time.

    On a CPU, vLLM 0.32 answers the base model's requests with an adapter where the two share a batch, and ends
    where a text is scored beside other requests (see `cpu_lora`). Its workers are mended where they have
    windowshift's extension; a server that was started without is asked in turns.

    Args:
        shut: whether kinds go in turns at all.
    """

    def __init__(self, shut: bool) -> None:
        self._shut = shut
        self._kind: RequestKind = "base"
        self._inside = 0
        self._waiting: list[asyncio.Future[None]] = []

    @asynccontextmanager
    async def through(self, kind: RequestKind) -> AsyncIterator[None]:
        """Wait until a request of this kind may go out, and hold others back while it is under way."""
        if not self._shut:
            yield
            return
        while self._inside and (kind != self._kind or kind == "alone"):
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        self._kind = kind
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                waiting, self._waiting = self._waiting, []
                for turn in waiting:
                    if not turn.done():
                        turn.set_result(None)
