"""Training jobs side by side: events as they come, a failed job alone, a bug in sight, nothing left behind."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from windowshift.backends.shared.journal_file import write_journal
from windowshift.backends.shared.side_by_side import Put, side_by_side
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Model
from windowshift.core.contract.training import Sft, TrainFailed, TrainJob, TrainMessage

JOBS = [TrainJob(key, Model("m"), (), Sft(), 0, Path(key)) for key in "abcd"]


async def test_a_job_that_fails_fails_alone_and_no_more_than_the_places_are_taken() -> None:
    under_way = most = 0

    async def work(job: TrainJob, put: Put) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        put(TrainMessage(job.key, "begun"))
        await asyncio.sleep(0)
        under_way -= 1
        if job.key == "b":
            raise BackendError("the server says no")
        put(TrainMessage(job.key, "ended"))

    found = [event async for event in side_by_side(JOBS, work, asyncio.Semaphore(2))]
    assert most == 2
    assert [event for event in found if isinstance(event, TrainFailed)] == [TrainFailed("b", "the server says no")]
    said = {key: [e.text for e in found if isinstance(e, TrainMessage) and e.key == key] for key in "abcd"}
    assert said == {"a": ["begun", "ended"], "b": ["begun"], "c": ["begun", "ended"], "d": ["begun", "ended"]}
    most = 0
    assert len([event async for event in side_by_side(JOBS, work, None)]) == 8
    assert most == 4
    assert [event async for event in side_by_side([], work, None)] == []


async def test_a_bug_reaches_the_reader_and_ends_the_rest() -> None:
    ended: list[str] = []

    async def work(job: TrainJob, put: Put) -> None:
        if job.key == "c":
            raise ZeroDivisionError
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(job.key)

    with pytest.raises(ZeroDivisionError):
        [event async for event in side_by_side(JOBS, work, None)]
    assert sorted(ended) == ["a", "b", "d"]


async def test_a_reader_that_leaves_ends_what_is_under_way() -> None:
    ended: list[str] = []

    async def work(job: TrainJob, put: Put) -> None:
        put(TrainMessage(job.key, "begun"))
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(job.key)

    async with aclosing(side_by_side(JOBS, work, None)) as events:
        assert await anext(events) == TrainMessage("a", "begun")
    assert sorted(ended) == ["a", "b", "c", "d"]


def test_a_journal_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "job.json"
    write_journal(path, {"a": 1})
    with pytest.raises(TypeError):
        write_journal(path, {"a": object()})
    assert path.read_text(encoding="utf-8") == '{\n "a": 1\n}'
    write_journal(path, {"b": 2})
    assert path.read_text(encoding="utf-8") == '{\n "b": 2\n}'
    assert list(path.parent.glob("*.json")) == [path]
