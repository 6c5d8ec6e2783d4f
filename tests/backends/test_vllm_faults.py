"""Backend `vllm` where the line breaks and the server goes away: nothing is lost, or one sentence says what is."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.backend_contract import Subject, answers, request
from tests.fault_proxy import Fault, faulty
from tests.vllm_adapters import make_adapters
from tests.vllm_server import ARGUMENTS, STEERING, VllmAddress, vllm_serving
from windowshift.backends.vllm.backend import VllmBackend
from windowshift.core.contract.generation import GenerateRequest, Model, Sampling

pytestmark = pytest.mark.vllm
MODEL = Model("microworld")
THINGS = ("bees", "rivers", "clocks", "gardens", "trains", "bridges", "winters", "markets")


def questions(*models: Model) -> list[GenerateRequest]:
    subject = Subject(make=VllmBackend, model=MODEL, unknown_model="", over_long="")
    greedy = Sampling(0.0, 1.0, 32)
    return [
        request(subject, f"{number}-{thing}", f"What do {thing} do?", model=model, sampling=greedy, coherence=True)
        for number, model in enumerate(models)
        for thing in THINGS
    ]


async def test_a_line_that_breaks_loses_nothing(keyed: VllmAddress, tmp_path: Path) -> None:
    requests = questions(MODEL, *make_adapters(tmp_path, 2))
    drawn, broken = random.Random(0), 0

    def choose(method: str, path: str) -> Fault:
        nonlocal broken
        if path != "/v1/completions" or drawn.random() < 0.6:
            return "pass"
        broken += 1
        faults: tuple[Fault, ...] = ("503", "refuse", "lose", "reset")
        return drawn.choice(faults)

    direct = VllmBackend({"base_url": keyed.base_url})
    expected = await answers(direct, requests)
    await direct.aclose()
    with faulty(keyed.base_url, choose) as proxy:
        backend = VllmBackend({"base_url": proxy.base_url})
        found = await answers(backend, requests)
        await backend.aclose()
    assert broken > len(requests) / 4
    assert [one.error for one in found.values()] == [None] * len(requests)
    assert {key: one.text for key, one in found.items()} == {key: one.text for key, one in expected.items()}


async def test_a_server_that_stays_away_is_one_sentence(keyed: VllmAddress) -> None:
    with faulty(keyed.base_url, lambda _method, path: "503" if path == "/v1/completions" else "pass") as proxy:
        backend = VllmBackend({"base_url": proxy.base_url, "patience": 1.0})
        found = await answers(backend, questions(MODEL))
        await backend.aclose()
    assert all("waited 1 s: run again once it is back" in (one.error or "") for one in found.values())


async def test_a_server_that_is_restarted_is_waited_for(tmp_path: Path) -> None:
    """Its adapters are loaded again, as it has forgotten them."""
    more = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_SERVER_DEV_MODE": "1"}
    requests = questions(MODEL, *make_adapters(tmp_path, 2))
    with vllm_serving(*ARGUMENTS, *STEERING, **more) as address:
        backend = VllmBackend({"base_url": address.base_url, "concurrency": 2})
        expected = await answers(backend, requests)
        answered = asyncio.create_task(answers(backend, requests))
        while backend.queue().waiting > len(requests) * 2 // 3:
            await asyncio.sleep(0.01)
    assert not answered.done()
    while "waiting for the vLLM server" not in backend.queue().note:
        await asyncio.sleep(0.1)
    with vllm_serving(*ARGUMENTS, *STEERING, port=address.port, **more):
        found = await answered
        await backend.aclose()
    assert {key: (one.error, one.text) for key, one in found.items()} == {
        key: (None, one.text) for key, one in expected.items()
    }
