"""Backend `vllm` beside backend `local` over a grid with 7 adapters; steered beside plain; compiled beside eager."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tests.vllm_server import ARGUMENTS, EXTENSION, KEY, MICROWORLD, vllm_serving

from bench.measurement import Measurement, median
from bench.steering import LARGE, random_llama
from windowshift.backends.local.backend import LocalBackend
from windowshift.backends.local.model_folder import identify, model_size
from windowshift.backends.vllm.backend import VllmBackend
from windowshift.core.contract.backend import Backend
from windowshift.core.contract.generation import GenerateRequest, Message, Model, Sampling, Steering
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.training import Example, Sft, Trained, TrainJob
from windowshift.core.contract.vector_file import Provenance
from windowshift.core.settings.world import example_prompts
from windowshift.core.spec import registry
from windowshift.steering.vector import SteeringVector

STEERED = 0.9
"""Of the tokens a second without steering, at least."""
SERVER = (
    "--enable-lora", "--max-loras", "7", "--max-lora-rank", "8", "--max-num-seqs", "128",
    "--worker-extension-cls", EXTENSION,
)  # fmt: skip
# Without adapters, with which vLLM compiles nothing on a CPU; and each pass reads its prompts, steered or not.
PLAIN_SERVER = ("--no-enable-prefix-caching", "--max-num-seqs", "128", "--worker-extension-cls", EXTENSION)
STARTING_SECONDS = 600.0


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
            yield from _measure_steering(folder, load)
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


def _measure_steering(folder: Path, load: Load) -> Iterator[Measurement]:
    """Tokens a second of the base model, with and without a push of every token, by turns; eager, then compiled."""
    more = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}
    eager: dict[str, list[float]] = {}
    for name, arguments in (("eager", ARGUMENTS), ("compiled", [one for one in ARGUMENTS if one != "--enforce-eager"])):
        starting = {"key": KEY, "model": load.model, "seconds": STARTING_SECONDS}
        with vllm_serving(*arguments, *PLAIN_SERVER, **starting, **more) as address:  # type: ignore[arg-type]
            found = asyncio.run(_steered(folder, address.base_url, load))
        plain, steered = median(found["plain"]), median(found["steered"])
        eager = eager or found
        yield Measurement(
            f"steered at vLLM, {name}",
            steered / plain,
            "×",
            better="higher",
            target=STEERED,
            against="plain",
            note=f"{load.name}, all tokens, {steered:.0f} and {plain:.0f} tokens a second, {load.runs} runs",
        )
    yield Measurement(
        "tokens a second at vLLM, compiled",
        plain,
        "/s",
        better="higher",
        baseline=median(eager["plain"]),
        against="eager",
        note=f"{load.name}, plain, without adapters",
    )


async def _steered(folder: Path, address: str, load: Load) -> dict[str, list[float]]:
    base = "microworld" if load.model == MICROWORLD else str(load.model)
    vllm = VllmBackend({"base_url": address})
    way = (Steering(str(_vector(folder / f"{load.model.name}.safetensors", base)), 0.05),)
    plain = _cells(Model(base), load)
    asked = {"plain": plain, "steered": [replace(one, steering=way, group="steered") for one in plain]}
    rates: dict[str, list[float]] = {"plain": [], "steered": []}
    for run in range(load.runs + 1):
        for name, requests in list(asked.items())[:: 1 if run % 2 else -1]:
            start = time.perf_counter()
            tokens = await _answered(vllm, requests)
            if run:  # the first one loads and warms up
                rates[name].append(tokens / (time.perf_counter() - start))
    await vllm.aclose()
    return rates


def _vector(path: Path, base: str) -> Path:
    """A direction of drawn numbers, for the layer in the middle."""
    size = model_size(base)
    numbers = np.random.default_rng(0).normal(size=(size.layers, size.width))
    own = Provenance(base, identify(base).fingerprint, "random")
    SteeringVector.make("drawn", numbers, own, layer=size.layers // 2).save(path, force=True)
    return path


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
    return [
        replace(one, key=f"{number}-{one.key}")
        for number, adapter in enumerate(adapters)
        for one in _cells(Model(base, adapter=adapter), load)
    ]


def _cells(model: Model, load: Load) -> list[GenerateRequest]:
    """One model under the seven evaluation conditions of setting `length`."""
    sampling = Sampling(1.0, 1.0, load.max_tokens)
    found = []
    for condition in registry.setting("length").conditions().values():
        for row, text in enumerate(example_prompts(load.prompts)):
            pushed = condition.push(Prompt("", text), row, "user")
            found.append(GenerateRequest(str(len(found)), pushed.messages, model, sampling, row))
    return found


async def _answer(backend: Backend, requests: Sequence[GenerateRequest]) -> float:
    """Completions a second."""
    start = time.perf_counter()
    await _answered(backend, requests)
    return len(requests) / (time.perf_counter() - start)


async def _answered(backend: Backend, requests: Sequence[GenerateRequest]) -> int:
    """How many tokens were drawn; a completion that failed ends the measurement."""
    tokens = 0
    async for completion in backend.generate(requests):
        if completion.error is not None:
            raise RuntimeError(completion.error)
        tokens += completion.tokens
    return tokens
