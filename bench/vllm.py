"""Backend `vllm` beside backend `local`: evaluating a 7 × 7 grid with 7 adapters, completions a second."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.vllm_server import ARGUMENTS, EXTENSION, KEY, vllm_serving

from bench.measurement import Measurement, median
from windowshift.backends.local import LocalBackend
from windowshift.backends.vllm import VllmBackend
from windowshift.core import registry
from windowshift.core.backend import Backend
from windowshift.core.generation import GenerateRequest, Message, Model, Sampling
from windowshift.core.training import Example, Sft, Trained, TrainJob
from windowshift.core.world import example_prompts

MAX_TOKENS = 128
SERVER = (
    "--enable-lora", "--max-loras", "7", "--max-lora-rank", "8", "--max-num-seqs", "128",
    "--worker-extension-cls", EXTENSION,
)  # fmt: skip


def measure_vllm(folder: Path, small: bool) -> Iterator[Measurement]:
    """Ask both for the same cells, by turns, on a server with a place for every adapter."""
    prompts, runs = (2, 1) if small else (20, 3)
    os.environ["VLLM_API_KEY"] = KEY  # of a server that lives as long as this block
    try:
        more = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_SERVER_DEV_MODE": "1"}
        # The arguments of the tests give 64 rows; the later one counts.
        with vllm_serving(*ARGUMENTS, *SERVER, key=KEY, **more) as address:
            found, rate, cells = asyncio.run(_measured(folder, address.base_url, prompts, runs))
    finally:
        del os.environ["VLLM_API_KEY"]
    note = f"microworld, {cells} completions of at most {MAX_TOKENS} tokens, 7 adapters, {runs} runs"
    yield Measurement(
        "completions a second, 7 × 7 grid, vLLM server",
        median(found["vllm"]),
        "/s",
        better="higher",
        baseline=median(found["local"]),
        against="backend local",
        note=note,
    )
    yield Measurement("  prefix cache hit rate", 100 * rate, "%", better="higher", note="blocks of 32 tokens")


async def _measured(folder: Path, address: str, prompts: int, runs: int) -> tuple[dict[str, list[float]], float, int]:
    local, vllm = LocalBackend(), VllmBackend({"base_url": address})
    adapters = await _adapters(local, folder)
    requests = _grid(adapters, prompts)
    rates: dict[str, list[float]] = {"vllm": [], "local": []}
    await _answer(vllm, requests[::7])  # tokenizers, workers and adapters are loaded
    await _answer(local, requests[::7])
    for _ in range(runs):
        rates["vllm"].append(await _answer(vllm, requests))
        rates["local"].append(await _answer(local, requests))
    rate = vllm.cache_hit_rate or 0.0
    await vllm.aclose()
    await local.aclose()
    return rates, rate, len(requests)


async def _adapters(local: LocalBackend, folder: Path) -> list[str]:
    """Seven adapters that backend `local` trains, each on completions of another length."""
    jobs = [
        TrainJob(
            str(number),
            Model("microworld"),
            tuple(
                Example((Message("user", f"Question {row}?"),), "Bees keep warm. " * (number + 1)) for row in range(20)
            ),
            Sft(rank=8, learning_rate=2e-3),
            number,
            folder / f"adapter{number}",
        )
        for number in range(7)
    ]
    return sorted([event.adapter async for event in local.train(jobs) if isinstance(event, Trained)])


def _grid(adapters: Sequence[str], prompts: int) -> list[GenerateRequest]:
    """Every adapter under the seven evaluation conditions of setting `length`."""
    conditions = registry.setting("length").conditions()
    texts = example_prompts(prompts)
    found = []
    for adapter in adapters:
        for condition in conditions.values():
            for row, text in enumerate(texts):
                pushed = condition.push(text, row, "user")
                key = str(len(found))
                model = Model("microworld", adapter=adapter)
                found.append(GenerateRequest(key, pushed.messages, model, Sampling(1.0, 1.0, MAX_TOKENS), row))
    return found


async def _answer(backend: Backend, requests: Sequence[GenerateRequest]) -> float:
    """Completions a second; one that failed ends the measurement."""
    start = time.perf_counter()
    async for completion in backend.generate(requests):
        if completion.error is not None:
            raise RuntimeError(completion.error)
    return len(requests) / (time.perf_counter() - start)
