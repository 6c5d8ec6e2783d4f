"""Backend `vllm` beside backend `local`: evaluating a 7 × 7 grid with 7 adapters, completions a second."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.vllm_server import ARGUMENTS, EXTENSION, KEY, MICROWORLD, vllm_serving

from bench.measurement import Measurement, median
from bench.steering import LARGE, random_llama
from windowshift.backends.local.backend import LocalBackend
from windowshift.backends.vllm.backend import VllmBackend
from windowshift.core.contract.backend import Backend
from windowshift.core.contract.generation import GenerateRequest, Message, Model, Sampling
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.training import Example, Sft, Trained, TrainJob
from windowshift.core.settings.world import example_prompts
from windowshift.core.spec import registry

SERVER = (
    "--enable-lora", "--max-loras", "7", "--max-lora-rank", "8", "--max-num-seqs", "128",
    "--worker-extension-cls", EXTENSION,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Load:
    """A model, and what is asked of it: completions a cell, tokens of each at most, runs."""

    name: str
    model: Path
    prompts: int
    max_tokens: int
    runs: int


def measure_vllm(folder: Path, small: bool) -> Iterator[Measurement]:
    """Ask both for the same cells, by turns, on a server with a place for every adapter."""
    loads = [Load("microworld", MICROWORLD, *((2, 128, 1) if small else (20, 128, 3)))]
    if not small:
        loads.append(Load(f"a random-weight Llama of {LARGE.name}", make_llama(folder / "llama-134m"), 2, 32, 2))
    os.environ["VLLM_API_KEY"] = KEY  # of a server that lives as long as this block
    try:
        for load in loads:
            yield from _measure(folder / f"adapters-{load.model.name}", load)
    finally:
        del os.environ["VLLM_API_KEY"]


def _measure(folder: Path, load: Load) -> Iterator[Measurement]:
    more = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_SERVER_DEV_MODE": "1"}
    more |= {"VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}  # its workers have all cores, as those of backend local have
    # The arguments of the tests give 64 rows; the later one counts.
    with vllm_serving(*ARGUMENTS, *SERVER, key=KEY, model=load.model, **more) as address:
        found, rate, cells = asyncio.run(_measured(folder, address.base_url, load))
    yield Measurement(
        "completions a second, 7 × 7 grid, vLLM server",
        median(found["vllm"]),
        "/s",
        better="higher",
        baseline=median(found["local"]),
        against="backend local",
        note=f"{load.name}, {cells} completions of at most {load.max_tokens} tokens, 7 adapters, {load.runs} runs",
    )
    yield Measurement("  prefix cache hit rate", 100 * rate, "%", better="higher", note="blocks of 32 tokens")


def make_llama(folder: Path) -> Path:
    """A Llama with random weights and microworld's tokenizer, large enough for arithmetic to take most of the time."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MICROWORLD)
    model = random_llama(LARGE, lora=False)
    for config in (model.config, model.generation_config):
        config.bos_token_id = tokenizer.bos_token_id
        config.eos_token_id = tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


async def _measured(folder: Path, address: str, load: Load) -> tuple[dict[str, list[float]], float, int]:
    base = "microworld" if load.model == MICROWORLD else str(load.model)
    local, vllm = LocalBackend(), VllmBackend({"base_url": address})
    adapters = await _adapters(local, base, folder)
    requests = _grid(base, adapters, load)
    rates: dict[str, list[float]] = {"vllm": [], "local": []}
    await _answer(vllm, requests[::7])  # tokenizers, workers and adapters are loaded
    await _answer(local, requests[::7])
    for _ in range(load.runs):
        rates["vllm"].append(await _answer(vllm, requests))
        rates["local"].append(await _answer(local, requests))
    rate = vllm.cache_hit_rate or 0.0
    await vllm.aclose()
    await local.aclose()
    return rates, rate, len(requests)


async def _adapters(local: LocalBackend, base: str, folder: Path) -> list[str]:
    """Seven adapters that backend `local` trains, each on completions of another length."""
    jobs = [
        TrainJob(
            str(number),
            Model(base),
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


def _grid(base: str, adapters: Sequence[str], load: Load) -> list[GenerateRequest]:
    """Every adapter under the seven evaluation conditions of setting `length`."""
    conditions = registry.setting("length").conditions()
    texts = example_prompts(load.prompts)
    sampling = Sampling(1.0, 1.0, load.max_tokens)
    found = []
    for adapter in adapters:
        for condition in conditions.values():
            for row, text in enumerate(texts):
                pushed = condition.push(Prompt("", text), row, "user")
                key = str(len(found))
                found.append(GenerateRequest(key, pushed.messages, Model(base, adapter=adapter), sampling, row))
    return found


async def _answer(backend: Backend, requests: Sequence[GenerateRequest]) -> float:
    """Completions a second; one that failed ends the measurement."""
    start = time.perf_counter()
    async for completion in backend.generate(requests):
        if completion.error is not None:
            raise RuntimeError(completion.error)
    return len(requests) / (time.perf_counter() - start)
