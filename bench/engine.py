"""Many adapters on one base: common passes beside PEFT one after another, and beside what the hardware could do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from bench.measurement import Measurement, median
from windowshift.backends.local import static_steps
from windowshift.backends.local.adapter_weights import AdapterWeights
from windowshift.backends.local.adapters import AdapterFile
from windowshift.backends.local.backend import LocalBackend
from windowshift.backends.local.batch_loss import BatchLoss, losses
from windowshift.backends.local.causal_lm import CausalLM, load
from windowshift.backends.local.chat_format import TrainingTokens
from windowshift.backends.local.options import LocalOptions
from windowshift.core.contract.assets import asset
from windowshift.core.contract.generation import Completion, GenerateRequest, Message, Model, Sampling
from windowshift.core.contract.training import Sft

ASKED = (Message("user", "What do bees do in the winter?"),)


@dataclass(frozen=True, slots=True)
class Case:
    """A model on a device, and what is asked of it.

    Attributes:
        name: of the device, in the table.
        device: as in the option of backend `local`.
        rank: of the adapters.
        adapters: how many share a pass, and are sampled from.
        prompt, completion: tokens of a training row.
        targets: by rows of a step: how many times PEFT's adapter-steps a second are wanted.
        sampled: the same of tokens a second, over `generate` of transformers.
        rows, tokens: completions of an adapter, and tokens of each at most.
        runs: of each measurement.
    """

    name: str
    device: str
    rank: int
    adapters: int
    prompt: int
    completion: int
    targets: dict[int, float]
    sampled: float | None
    rows: int
    tokens: int
    runs: int


CPU = Case("CPU, microworld", "cpu", 8, 7, 20, 34, {2: 2.5, 4: 1.4}, None, 16, 32, 15)
"""Tokens of a row: about what a cell of the demo has."""
GPU = Case("GPU, 0.6 B random", "cuda", 32, 8, 120, 340, {2: 10.0}, None, 64, 128, 5)
"""Of Qwen3-0.6B's shape, in bfloat16."""
SHAPE = {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "vocab_size": 151_936}
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 2048}


def measure_engine(folder: Path, small: bool = False) -> Iterator[Measurement]:
    """Training steps and sampled tokens of many adapters: on the CPU, and on a GPU where there is one.

    CPU time of one thread, so that other work on the machine counts for little; wall-clock time on a GPU. The ways
    take turns. A step is gradients, clipping and AdamW.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        cpu = _less(CPU, "CPU, microworld") if small else CPU
        yield from _measure(cpu, "microworld", folder / "cpu")
        if small:  # the way to a GPU, as far as a CPU goes
            base = random_model(folder / "model", TINY)
            yield from _measure(_less(GPU, "CPU, random model", "cpu"), str(base), folder / "random")
        elif torch.cuda.is_available():
            yield from _measure(GPU, str(random_model(folder / "model", SHAPE)), folder / "gpu")
    finally:
        torch.set_num_threads(threads)


def _less(case: Case, name: str, device: str | None = None) -> Case:
    batches = dict(list(case.targets.items())[:1])
    return Case(name, device or case.device, 4, 2, 8, 8, batches, None, 2, 4, 1)


def random_model(folder: Path, shape: dict[str, int]) -> Path:
    """Write a Qwen3 of this shape with random weights, and the embedded model's tokenizer."""
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    heads = max(2, shape["hidden_size"] // 64)
    config = Qwen3Config(
        **shape, num_attention_heads=heads, num_key_value_heads=heads // 2, head_dim=128, tie_word_embeddings=True
    )
    where = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(where):
        model = Qwen3ForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(asset("microworld"))).save_pretrained(folder)
    return folder


def _measure(case: Case, base: str, folder: Path) -> Iterator[Measurement]:
    options = LocalOptions(threads=1, device=case.device)
    limit = _operations(case, load(base, None, options))
    for batch, target in case.targets.items():
        yield from _training(case, base, options, batch, target, limit)
    yield from _sampling(case, base, options, folder, limit)


def _training(
    case: Case, base: str, options: LocalOptions, batch: int, target: float, limit: float
) -> Iterator[Measurement]:
    lm, other = load(base, None, options), load(base, None, options)
    if lm.stacking_fault is not None:
        raise RuntimeError(lm.stacking_fault)
    ways: dict[str, tuple[int, Callable[[], None]]] = {"PEFT": (1, _peft(case, other, batch))}
    ways |= {str(count): (count, _stacked(case, lm, batch, count)) for count in (1, case.adapters)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(case.runs + 2):
        for name, (count, step) in ways.items():
            spent = _spent(case, step)
            if turn > 1 or case.runs == 1:
                times[name].append(spent / count)
    baseline = 1 / median(times["PEFT"])
    tokens = batch * (case.prompt + case.completion)
    note = f"{tokens} tokens a step, rank {case.rank}, {_clock(case)}, {case.runs} runs"
    for count in (1, case.adapters):
        yield Measurement(
            f"{case.name}: adapter-steps, batch {batch}, {count} in a pass",
            1 / median(times[str(count)]),
            "/s",
            better="higher",
            target=target * baseline if count == case.adapters else None,
            baseline=baseline,
            against="PEFT's modules, one adapter after another",
            note=note,
        )
    yield Measurement(
        f"{case.name}: the products of a step of batch {batch} alone",
        limit / (_linear_operations(lm, forwards=2) * tokens),
        "/s",
        better="higher",
        baseline=baseline,
        against="PEFT's modules, one adapter after another",
        note="the hardware's limit: the base model's products forwards and backwards, as fast as a large one",
    )


def _sampling(case: Case, base: str, options: LocalOptions, folder: Path, limit: float) -> Iterator[Measurement]:
    lm = load(base, None, options)
    made = [AdapterWeights(lm.adapters, Sft(rank=case.rank), seed) for seed in range(case.adapters)]
    folders = [folder / f"adapter-{number}" for number in range(case.adapters)]
    for weights, place in zip(made, folders, strict=True):
        lm.adapters.save(weights.name, place)
        lm.adapters.drop(weights.name)
    sampling = Sampling(temperature=1.0, max_tokens=case.tokens)
    requests = [
        GenerateRequest(f"{number}-{row}", ASKED, Model(base, adapter=str(place)), sampling, row)
        for number, place in enumerate(folders)
        for row in range(case.rows)
    ]
    drawn, spent = asyncio.run(_answered(case, requests))
    _generated(case, lm, folders[:1])  # warms up
    counts: list[int] = []
    there = _spent(case, lambda: counts.append(_generated(case, lm, folders)))
    baseline = counts[0] / there
    note = f"{case.adapters} adapters, {case.rows} rows each, at most {case.tokens} tokens, {_clock(case)}"
    if case.device == "cuda":
        with patch.object(static_steps, "recorder_for", lambda _device: None):
            launched, seconds = asyncio.run(_answered(case, requests))
        yield Measurement(
            f"{case.name}: tokens sampled from {case.adapters} adapters, played from CUDA graphs",
            drawn / spent,
            "/s",
            better="higher",
            baseline=launched / seconds,
            against="the same steps, launched one by one",
            note=note,
        )
    yield Measurement(
        f"{case.name}: tokens sampled from {case.adapters} adapters",
        drawn / spent,
        "/s",
        better="higher",
        baseline=baseline,
        against="generate of transformers through PEFT's modules, one adapter after another",
        note=note,
    )
    yield Measurement(
        f"{case.name}: the products of sampling alone",
        limit / _linear_operations(lm, forwards=1),
        "/s",
        better="higher",
        baseline=baseline,
        against="generate of transformers through PEFT's modules, one adapter after another",
        note="the hardware's limit: the base model's products, as fast as a large one, for as many rows as it takes",
    )


async def _answered(case: Case, requests: Sequence[GenerateRequest]) -> tuple[int, float]:
    """Tokens drawn by backend `local`, and the seconds that it took, once the model is loaded and checked."""
    backend = LocalBackend({"workers": 1, "threads": 1, "device": case.device})
    clock = time.perf_counter if case.device == "cuda" else time.process_time
    found: list[Completion] = []
    begun = 0.0
    for asked in (requests[:1], requests):
        begun = clock()
        found = [each async for each in backend.generate(asked)]
    spent = clock() - begun
    await backend.aclose()
    wrong = next((each.error for each in found if each.finish == "failed"), None)
    if wrong:
        raise RuntimeError(wrong)
    return sum(each.tokens for each in found), spent


def _generated(case: Case, lm: CausalLM, folders: Sequence[Path]) -> int:
    """Tokens drawn by `generate` of transformers."""
    ids = torch.tensor([list(lm.chat.prompt_ids(ASKED))] * case.rows, device=lm.device)
    ends = sorted(lm.end_ids)
    drawn = 0
    for place in folders:
        lm.adapters.use(lm.adapters.load(AdapterFile.at(place)))
        found = lm.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0,
            max_new_tokens=case.tokens, eos_token_id=ends, pad_token_id=ends[0],
        )[:, ids.shape[1] :]  # fmt: skip
        ended = torch.isin(found, torch.tensor(ends, device=found.device)).long().cumsum(1)
        drawn += int((ended == 0).sum())
    lm.adapters.use(None)
    return drawn


def _rows(case: Case, batch: int) -> list[TrainingTokens]:
    ids = [5 + index % 60 for index in range(case.prompt + case.completion + batch)]
    end = case.prompt + case.completion
    return [TrainingTokens(ids[row : row + case.prompt], ids[row + case.prompt : row + end]) for row in range(batch)]


def _stacked(case: Case, lm: CausalLM, batch: int, count: int) -> Callable[[], None]:
    made = [AdapterWeights(lm.adapters, Sft(rank=case.rank), seed) for seed in range(count)]
    optimizers = [_adam([weights.flat]) for weights in made]
    parts = [BatchLoss(lm, (), _rows(case, batch), weights) for weights in made]

    def step() -> None:
        for weights in made:
            weights.forget_gradients()
        found = losses(lm, [part.batch(range(batch)) for part in parts])
        torch.stack(found).sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        for weights, optimizer in zip(made, optimizers, strict=True):
            nn.utils.clip_grad_norm_([weights.flat], 1.0)
            optimizer.step()

    return step


def _peft(case: Case, lm: CausalLM, batch: int) -> Callable[[], None]:
    """As a loop over `PeftModel` does it, and as backend `local` did."""
    name, parameters = lm.adapters.create(Sft(rank=case.rank), 0)
    optimizer = _adam(list(parameters.values()))
    ids = torch.tensor([[*each.prompt, *each.completion] for each in _rows(case, batch)], device=lm.device)

    def step() -> None:
        lm.adapters.use(name)
        logits = lm.model(input_ids=ids, use_cache=False, logits_to_keep=case.completion + 1).logits[:, :-1]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, case.prompt :].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
        float(loss.detach())
        optimizer.step()

    return step


def _adam(parameters: Sequence[Any]) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=True)


def _clock(case: Case) -> str:
    return "wall-clock time" if case.device == "cuda" else "CPU time of one thread"


def _spent(case: Case, run: Callable[[], object]) -> float:
    """Seconds that a call takes: of this process on a CPU, on the clock on a GPU."""
    if case.device != "cuda":
        start = time.process_time()
        run()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def _linear_operations(lm: CausalLM, forwards: int) -> int:
    """Operations a token of the products with the base model's weights; frozen ones have no gradient."""
    sizes = [module.weight.numel() for module in lm.model.modules() if type(module) is nn.Linear]
    return 2 * forwards * sum(sizes)


def _operations(case: Case, lm: CausalLM) -> float:
    """Operations a second of a large product in the type that the model trains in."""
    size = 8192 if case.device == "cuda" else 1024
    one = torch.randn(size, size, device=lm.device).to(lm.model.dtype)
    out = torch.empty_like(one)
    times = [_spent(case, lambda: torch.mm(one, one, out=out)) for _ in range(5)]
    return float(2 * size**3 / median(times[1:]))
