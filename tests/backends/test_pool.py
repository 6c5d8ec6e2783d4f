"""The pool that requests go through: so many at a time, each result as it comes, nothing left behind."""

from __future__ import annotations

import asyncio

import pytest

from windowshift.backends.shared.pool import pooled


async def test_every_result_once_and_never_more_than_the_width() -> None:
    under_way = most = 0

    async def work(number: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        for _ in range(number % 5):
            await asyncio.sleep(0)
        under_way -= 1
        return number * number

    found = [each async for each in pooled(range(50), 7, work)]
    assert sorted(found) == [number * number for number in range(50)]
    assert most == 7
    assert [each async for each in pooled([], 7, work)] == []


async def test_an_error_reaches_the_reader_and_ends_the_rest() -> None:
    ended = asyncio.Event()

    async def work(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return number

    with pytest.raises(ValueError, match="three"):
        async for _ in pooled(range(5), 5, work):
            pass
    assert ended.is_set()


async def test_a_reader_that_leaves_ends_what_is_under_way() -> None:
    ended: list[int] = []

    async def work(number: int) -> int:
        if number:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(number)
        return number

    stream = pooled(range(4), 4, work)
    assert await anext(stream) == 0
    await stream.aclose()
    assert sorted(ended) == [1, 2, 3]
