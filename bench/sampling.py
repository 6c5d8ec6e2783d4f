"""Sampling cells of several adapters: one shared batch beside one adapter after another, and shared beginnings."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.measurement import Measurement, median
from windowshift.backends.local.adapters import AdapterFile
from windowshift.backends.local.causal_lm import CausalLM, load
from windowshift.backends.local.decode_row import Decoded, Row
from windowshift.backends.local.options import LocalOptions
from windowshift.backends.local.sampler import decode
from windowshift.backends.local.shared_batch import WORTH_SHARING, SharedBatch
from windowshift.core.contract.conditions import prefix_groups
from windowshift.core.contract.generation import Message
from windowshift.core.contract.training import Sft
from windowshift.core.settings.world import example_prompts

CONDITIONS = ("short", "med_short", "long", "very_long")
PLACES, ALONE, TOGETHER = 128, 400, 128
"""Places of a batch; rows of a portion in the old way, and in the new one, which has several at a time."""
TARGET = 1.6
SHOTS = 600
"""Tokens of a context of many shots."""


def measure_sampling(_folder: Path, adapters: int = 3, prompts: int = 50, runs: int = 3) -> Iterator[Measurement]:
    """Completions a second of CPU time, one thread, by turns; both ways draw the same tokens or the bench fails."""
    lm = load("microworld", None, LocalOptions(threads=1, device="cpu"))
    if lm.sampling_fault is not None:
        raise RuntimeError(lm.sampling_fault)
    with tempfile.TemporaryDirectory() as folder:
        files = [_random(lm, Path(folder) / str(number), number) for number in range(adapters)]
        cells = {file: list(_rows(lm, prompts, number)) for number, file in enumerate([None, *files])}
        count = sum(map(len, cells.values()))
        ways: dict[str, Callable[[], list[Decoded]]] = {
            "merged": lambda: _merged(lm, cells),
            "shared": lambda: _shared(lm, cells),
        }
        found = _timed(ways, runs)
        yield Measurement(
            f"completions a second, {adapters} adapters and the base model in one batch",
            count / found["shared"],
            "/s",
            better="higher",
            target=TARGET * count / found["merged"],
            baseline=count / found["merged"],
            against="merged, one adapter after another",
            note=f"{count} rows, {len(CONDITIONS)} conditions, {PLACES} places, one thread, CPU time, {runs} runs",
        )
    rows = _shots(lm, prompts)
    ways = {"whole": lambda: _run(lm, rows, 0), "once": lambda: _run(lm, rows, WORTH_SHARING)}
    found = _timed(ways, runs)
    yield Measurement(
        f"completions a second behind a common context of {SHOTS} tokens, run once",
        len(rows) / found["once"],
        "/s",
        better="higher",
        baseline=len(rows) / found["whole"],
        against="every prompt whole",
        note=f"{len(rows)} rows of at most 24 tokens, one thread, CPU time, {runs} runs",
    )


def _timed(ways: dict[str, Callable[[], list[Decoded]]], runs: int) -> dict[str, float]:
    """Median seconds of CPU time of each way."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    texts: set[tuple[Any, ...]] = set()
    for _ in range(runs):
        for name, run in ways.items():
            start = time.process_time()
            decoded = run()
            times[name].append(time.process_time() - start)
            texts.add(tuple(tuple(each.ids) for each in sorted(decoded, key=lambda each: each.row.index)))
    if len(texts) > 1:
        raise RuntimeError("the ways to sample do not draw the same tokens")
    return {name: median(each) for name, each in times.items()}


def _random(lm: CausalLM, place: Path, seed: int) -> AdapterFile:
    name, parameters = lm.adapters.create(Sft(rank=8, alpha=16), seed=seed)
    with torch.no_grad():
        for number, parameter in enumerate(parameters.values()):
            generator = torch.Generator().manual_seed(1000 * seed + number)
            parameter.copy_(0.03 * torch.randn(parameter.shape, generator=generator))
    lm.adapters.save(name, place)
    lm.adapters.drop(name)
    return AdapterFile.at(place)


def _rows(lm: CausalLM, prompts: int, number: int) -> Iterator[Row]:
    groups, index = prefix_groups(), number * len(CONDITIONS) * prompts
    for condition in CONDITIONS:
        for place, prompt in enumerate(example_prompts(prompts)):
            phrases = groups[condition].phrases
            text = f"{phrases[place % len(phrases)]}\n\n{prompt}"
            yield Row(index, lm.chat.prompt_ids((Message("user", text),)), index, 1.0, 1.0, 384)
            index += 1


def _shots(lm: CausalLM, prompts: int) -> list[Row]:
    ids = [*next(_rows(lm, 1, 0)).prompt] * SHOTS
    rows = list(_rows(lm, prompts, 0))[:prompts]
    return [replace(row, prompt=[*ids[:SHOTS], *row.prompt], max_tokens=24) for row in rows]


def _run(lm: CausalLM, rows: Sequence[Row], worth: int) -> list[Decoded]:
    steps = decode(
        lm.sampling_forward(None),
        iter(rows),
        end_ids=lm.end_ids,
        cache_plan=lm.cache_plan,
        batch_rows=PLACES,
        shares=lambda saved: bool(worth) and saved >= worth,
    )
    return [each for step in steps for each in step]


def _merged(lm: CausalLM, cells: dict[AdapterFile | None, list[Row]]) -> list[Decoded]:
    """Each adapter merged into the copy that samples, its rows in portions with a batch of their own."""
    found: list[Decoded] = []
    for file, rows in cells.items():
        before: dict[str, Any] = {}
        if file is not None:
            for path, weight in lm.adapters.deltas(lm.adapters.load(file)):
                module: Any = lm.base().get_submodule(path)
                before[path] = module.weight
                module.weight = nn.Parameter(weight, requires_grad=False)
        for at in range(0, len(rows), ALONE):
            found += _run(lm, rows[at : at + ALONE], 0)
        for path, weight in before.items():
            lm.base().get_submodule(path).weight = weight
    return found


def _shared(lm: CausalLM, cells: dict[AdapterFile | None, list[Row]]) -> list[Decoded]:
    """Portions of all adapters, three at a time as in a worker, in one batch."""
    rows = [(row, file) for file, rows in cells.items() for row in rows]
    portions = [rows[at : at + TOGETHER] for at in range(0, len(rows), TOGETHER)]
    batch, found = SharedBatch(lm, PLACES), list[Decoded]()
    open_ones: list[tuple[Any, int]] = []
    while portions or open_ones:
        while portions and len(open_ones) < 3:
            portion, member = portions.pop(0), batch.join()
            member.adapters = {row.index: str(file.folder) for row, file in portion if file is not None}
            member.rows.extend(row for row, _ in portion)
            open_ones.append((member, len(portion)))
        for member, left in list(open_ones):
            ended, failures = member.advance()
            if failures:
                raise RuntimeError(str(failures[0][1]))
            found += ended
            place = open_ones.index((member, left))
            open_ones[place] = (member, left - len(ended))
            if left == len(ended):
                batch.leave(member)
                del open_ones[place]
    return found
