"""Training many adapters on one base: common passes beside PEFT's modules one adapter after another, in CPU time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.measurement import Measurement, median
from windowshift.backends.local.adapter_weights import AdapterWeights
from windowshift.backends.local.batch_loss import BatchLoss, losses
from windowshift.backends.local.causal_lm import CausalLM, load
from windowshift.backends.local.chat_format import TrainingTokens
from windowshift.backends.local.options import LocalOptions
from windowshift.core.contract.training import Sft

PROMPT, COMPLETION = 20, 34
"""Tokens of a row: about what a cell of the demo has."""
OPTIONS = LocalOptions(threads=1, device="cpu")
TARGETS = {2: 2.5, 4: 1.4}


def measure_engine(_folder: Path, runs: int = 15) -> Iterator[Measurement]:
    """An adapter-step of the embedded model at batches of 2 and 4, by turns.

    CPU time of one thread, so that other work on the machine counts for little; a step is gradients, clipping and
    AdamW.
    """
    for batch, target in TARGETS.items():
        lm = load("microworld", None, OPTIONS)
        if lm.stacking_fault is not None:
            raise RuntimeError(lm.stacking_fault)
        ways: dict[str, tuple[int, Callable[[], None]]] = {"PEFT": (1, _peft(load("microworld", None, OPTIONS), batch))}
        ways |= {str(count): (count, _stacked(lm, batch, count)) for count in (1, 7)}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(runs + 2):
            for name, (count, step) in ways.items():
                start = time.process_time()
                step()
                if turn > 1:
                    times[name].append((time.process_time() - start) * 1000 / count)
        for count in (1, 7):
            yield Measurement(
                f"adapter-steps a second, batch {batch}, {count} in a pass",
                1000 / median(times[str(count)]),
                "/s",
                better="higher",
                target=target * 1000 / median(times["PEFT"]) if count == 7 else None,
                baseline=1000 / median(times["PEFT"]),
                against="PEFT's modules, one adapter",
                note=f"{batch * (PROMPT + COMPLETION)} tokens a step, rank 8, one thread, CPU time, {runs} runs",
            )


def _rows(batch: int) -> list[TrainingTokens]:
    ids = [5 + index % 60 for index in range(PROMPT + COMPLETION + batch)]
    return [
        TrainingTokens(ids[row : row + PROMPT], ids[row + PROMPT : row + PROMPT + COMPLETION]) for row in range(batch)
    ]


def _stacked(lm: CausalLM, batch: int, count: int) -> Callable[[], None]:
    made = [AdapterWeights(lm.adapters, Sft(rank=8), seed) for seed in range(count)]
    optimizers = [_adam([weights.flat]) for weights in made]
    parts = [BatchLoss(lm, (), _rows(batch), weights) for weights in made]

    def step() -> None:
        for weights in made:
            weights.forget_gradients()
        found = losses(lm, [part.batch(range(batch)) for part in parts])
        torch.stack(found).sum().backward()  # type: ignore[no-untyped-call]
        for weights, optimizer in zip(made, optimizers, strict=True):
            nn.utils.clip_grad_norm_([weights.flat], 1.0)
            optimizer.step()

    return step


def _peft(lm: CausalLM, batch: int) -> Callable[[], None]:
    """As a loop over `PeftModel` does it, and as backend `local` did."""
    name, parameters = lm.adapters.create(Sft(rank=8), 0)
    optimizer = _adam(list(parameters.values()))
    rows = _rows(batch)
    ids = torch.tensor([[*each.prompt, *each.completion] for each in rows])

    lm.adapters.use(name)

    def step() -> None:
        logits = lm.model(input_ids=ids, use_cache=False, logits_to_keep=COMPLETION + 1).logits[:, :-1]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, PROMPT:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
        float(loss.detach())
        optimizer.step()

    return step


def _adam(parameters: Sequence[Any]) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
