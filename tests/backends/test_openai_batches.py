"""Batches of backend `openai` that calls share: begun together, paid once, and left by one without the others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.scripted_server import Asked, Reply, Scripted, completion, scripted
from windowshift.backends.openai.backend import OpenAIBackend
from windowshift.core.contract.budget import Budget
from windowshift.core.contract.generation import Completion, GenerateRequest, Message, Model, Sampling
from windowshift.core.contract.service import Limits

PRICES = {"m": {"input": 0, "output": 1_000_000}}  # a dollar a token, and half of it in a batch
MOST = 4 * 0.5  # of one request
PAID = 3 * 0.5  # of an answer: three tokens


@dataclass
class Host:
    """A server whose batches end when they are let."""

    open: bool = True
    files: dict[str, list[str]] = field(default_factory=dict)
    batches: dict[str, str] = field(default_factory=dict)

    def answer(self, asked: Asked) -> Reply:
        path = asked.path.partition("?")[0]
        if path.endswith("/content"):
            names = self.files[path.split("/")[-2].removeprefix("out-")]
            rows = [{"custom_id": name, "response": {"status_code": 200, "body": completion()}} for name in names]
            return Reply("\n".join(map(json.dumps, rows)).encode())
        if path.endswith("/files") and asked.method == "POST":
            name = f"f{len(self.files)}"
            lines = [line for line in asked.body.splitlines() if line.startswith(b'{"custom')]
            self.files[name] = [json.loads(line)["custom_id"] for line in lines]
            return Reply({"id": name, "object": "file"})
        if path.endswith("/batches") and asked.method == "GET":
            return Reply({"data": [], "has_more": False})
        if path.endswith("/batches"):
            name = f"b{len(self.batches)}"
            self.batches[name] = asked.json["input_file_id"]
            return Reply(self.batch(name))
        return Reply(self.batch(path.split("/")[-1]))

    def batch(self, name: str) -> dict[str, Any]:
        status = {"status": "completed", "output_file_id": f"out-{self.batches[name]}"} if self.open else {}
        return {"id": name, "object": "batch", "status": "in_progress", "created_at": 1, **status}

    @property
    def sizes(self) -> list[int]:
        """How many requests each batch has."""
        return [len(self.files[file]) for file in self.batches.values()]


@contextmanager
def hosted(host: Host) -> Iterator[Scripted]:
    with scripted(host.answer) as server:
        yield server


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key")


def asking(*numbers: int) -> list[GenerateRequest]:
    return [
        GenerateRequest(f"r{each}", (Message("user", f"Question {each}"),), Model("m"), Sampling(max_tokens=4), each)
        for each in numbers
    ]


def backend_at(server: Scripted, budget: Budget, folder: Path) -> OpenAIBackend:
    backend = OpenAIBackend({**server.options, "batch": True, "prices": PRICES})
    backend.begin(Limits(), budget, folder)
    return backend


async def answers(backend: OpenAIBackend, requests: list[GenerateRequest]) -> list[Completion]:
    return [each async for each in backend.generate(requests)]


async def test_calls_that_overlap_share_a_batch(tmp_path: Path) -> None:
    host, budget = Host(), Budget()
    with hosted(host) as server:
        backend = backend_at(server, budget, tmp_path)
        calls = await asyncio.gather(*(answers(backend, asking(*range(n, n + 5))) for n in range(0, 40, 5)))
        await backend.aclose()
    assert host.sizes == [40]
    assert [sorted(each.key for each in call) for call in calls] == [
        sorted(f"r{each}" for each in range(n, n + 5)) for n in range(0, 40, 5)
    ]
    assert {each.finish for call in calls for each in call} == {"stop"}
    assert sum(each.usd or 0 for call in calls for each in call) == budget.spent == 40 * PAID


async def test_equal_requests_of_two_calls_are_paid_once(tmp_path: Path) -> None:
    host, budget = Host(), Budget()
    with hosted(host) as server:
        backend = backend_at(server, budget, tmp_path)
        one, two = await asyncio.gather(answers(backend, asking(1, 2)), answers(backend, asking(2, 3)))
        await backend.aclose()
    assert host.sizes == [3]
    assert {each.key: each.text for each in [*one, *two]} == dict.fromkeys(("r1", "r2", "r3"), "Yes.")
    assert sum(each.usd or 0 for each in [*one, *two]) == budget.spent == 3 * PAID


async def test_what_is_too_much_together_is_asked_call_by_call(tmp_path: Path) -> None:
    host, budget = Host(), Budget(limit=3.5 * MOST)
    with hosted(host) as server:
        backend = backend_at(server, budget, tmp_path)
        one, two = await asyncio.gather(answers(backend, asking(1, 2)), answers(backend, asking(3, 4, 5)))
        await backend.aclose()
    assert host.sizes == [2]
    assert [each.finish for each in one] == ["stop", "stop"]
    assert [each.finish for each in two] == ["failed"] * 3
    assert all("limits.usd" in (each.error or "") for each in two)


async def test_a_call_that_is_left_leaves_the_others_theirs(tmp_path: Path) -> None:
    host, budget = Host(open=False), Budget()
    with hosted(host) as server:
        backend = backend_at(server, budget, tmp_path)
        gone, stays = (asyncio.create_task(answers(backend, asking(each, each + 10))) for each in (1, 2))
        while not host.batches:
            await asyncio.sleep(0.01)
        gone.cancel()
        with suppress(asyncio.CancelledError):
            await gone
        host.open = True
        assert [each.finish for each in await stays] == ["stop", "stop"]
        await backend.aclose()
    assert host.sizes == [4]


async def test_who_asks_again_for_what_was_left_has_an_answer_from_the_same_batch(tmp_path: Path) -> None:
    host, budget = Host(open=False), Budget()
    with hosted(host) as server:
        backend = backend_at(server, budget, tmp_path)
        gone = asyncio.create_task(answers(backend, asking(1, 2)))
        while not list((tmp_path / "batches").glob("*.json")) or '"batch": null' in _record(tmp_path):
            await asyncio.sleep(0.01)
        gone.cancel()
        again = asyncio.create_task(answers(backend, asking(1, 2)))
        with suppress(asyncio.CancelledError):
            await gone
        host.open = True
        found = await asyncio.wait_for(again, 30)
        await backend.aclose()
    assert [each.finish for each in found] == ["stop", "stop"]
    assert host.sizes == [2]
    assert budget.spent == 2 * PAID


def _record(folder: Path) -> str:
    return next((folder / "batches").glob("*.json")).read_text(encoding="utf-8")
