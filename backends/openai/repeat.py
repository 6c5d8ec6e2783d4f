"""Repeating what may be repeated: a question to the server that changes nothing, or changes it to the same."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from windowshift.backends.openai.connection import OpenAIConnection
from windowshift.backends.openai.options import OpenAIOptions
from windowshift.backends.shared.faults import ServiceError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

T = TypeVar("T")
LEAST_PAUSE = 1.0
"""Seconds; after some tries a server that says "again, in no time" is not believed to mean less."""


async def repeat(connection: OpenAIConnection, what: str, ask: Callable[[AsyncOpenAI], Awaitable[T]]) -> T:
    """Ask until the server answers, for as long as the option `patience` says.

    Raises:
        ServiceError: it refused, or it did not answer in that time; the sentence begins with `what`.
        BackendError: there is no key, or no SDK.
    """
    begun, tries = time.monotonic(), 0
    while True:
        try:
            return await connection.call(what, ask)
        except ServiceError as error:
            if error.fault.remedy in ("refused", "stop"):
                raise
            waited = time.monotonic() - begun
            if waited > connection.options.patience:
                raise ServiceError(f"{error}; given up after {waited:.0f} s", error.fault) from None
            await pause(connection.options, tries, error.fault.seconds)
            tries += 1


async def pause(options: OpenAIOptions, tries: int, seconds: float | None = None) -> None:
    """Wait as long as the server asked, or twice as long as the time before; never not at all."""
    wanted = min(options.longest_backoff, options.backoff * 2.0 ** min(tries, 16))
    if seconds is not None:
        seconds = max(seconds, min(wanted, LEAST_PAUSE))
    # Apart, so that many that failed together do not come back together.
    await asyncio.sleep(wanted * random.uniform(0.75, 1.25) if seconds is None else seconds)
