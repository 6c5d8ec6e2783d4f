"""A pool: the same work on many things, so many at a time, each result as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


async def pooled(things: Sequence[A], width: int, work: Callable[[A], Awaitable[B]]) -> AsyncGenerator[B, None]:
    """Work on all things, at most `width` at once; a reader that leaves ends what is under way.

    As many tasks as may be under way: a hundred thousand requests are not as many tasks.

    Raises:
        Exception: what `work` raised; the rest is ended.
    """
    found: asyncio.Queue[tuple[B | None, Exception | None]] = asyncio.Queue()
    rest = iter(things)

    async def take() -> None:
        try:
            for thing in rest:
                found.put_nowait((await work(thing), None))
        except Exception as error:  # the reader must see it, not wait for ever
            found.put_nowait((None, error))

    tasks = [asyncio.create_task(take()) for _ in range(min(width, len(things)))]
    try:
        for _ in things:
            result, error = await found.get()
            if error is not None:
                raise error
            yield result  # type: ignore[misc]  # without an error there is a result, None where `work` gives None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
