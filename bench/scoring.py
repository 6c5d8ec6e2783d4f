"""A slow scorer beside a run: whether ten thousand calls hold up heartbeats, or what a key press asks of the store."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measurement import Measurement, percentile
from windowshift.core.contract.backend import Capabilities, ModelIdentity
from windowshift.core.contract.generation import Completion, GenerateRequest
from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.setting import Sample, Score, Scorer, Scores
from windowshift.core.contract.training import Trained, TrainEvent, TrainJob
from windowshift.core.plan.plan import make_plan
from windowshift.core.run.ledger import Ledger
from windowshift.core.run.runner import Runner
from windowshift.core.settings.length import LengthScorer, LengthSetting
from windowshift.core.spec import registry
from windowshift.core.spec.spec import parse_spec
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer

SPEC = """
name: scoring
model: none
conditions: {{generate: [short], train: [short], evaluate: [short, no_prefix]}}
data: {{size: 8}}
sampling: {{prompts: {prompts}, max_tokens: 12}}
prompts: {{file: {file}}}
"""
SECONDS = 0.05
WORKERS = 8
BEAT = 0.01


@dataclass(frozen=True)
class Slow:
    """Sleeps in a process of its own for each completion."""

    name: str = "slow"
    behaviours: tuple[Behaviour, ...] = (Behaviour("slow", "share", Scale.rate(), "primary"),)
    batch_size: int = 1
    workers: int = WORKERS
    timeout: float | None = 30.0
    process: bool = True

    def identity(self) -> dict[str, Any]:
        """As `Scorer.identity`."""
        return {"scorer": "bench-slow", "version": 1}

    def score_batch(self, samples: Sequence[Sample]) -> Sequence[Scores]:
        """Take 50 ms a sample."""
        time.sleep(SECONDS * len(samples))
        return [{"slow": Score(1.0)} for _ in samples]


@dataclass(frozen=True)
class _Setting:
    scorers: tuple[Scorer, ...]
    name: str = "bench"

    def conditions(self) -> Any:
        return LengthSetting().conditions()

    def default_prompts(self) -> str | None:
        return None


class _Backend:
    """Answers at once."""

    capabilities = Capabilities(trains=True, checkpoints=True)

    def identify(self, base: str, revision: str | None = None) -> ModelIdentity:  # noqa: ARG002 - the protocol's
        return ModelIdentity(base, "bench")

    def supports_system(self, base: str, revision: str | None = None) -> bool:  # noqa: ARG002 - the protocol's
        return True

    async def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion, None]:
        for number, request in enumerate(requests):
            if number % 50 == 0:
                await asyncio.sleep(0)
            yield Completion(request.key, f"answer {number}", "stop", 3, 5)

    async def train(self, jobs: Sequence[TrainJob]) -> AsyncGenerator[TrainEvent, None]:
        for job in jobs:
            adapter = job.output / "adapter"
            adapter.mkdir(parents=True, exist_ok=True)
            (adapter / "adapter_config.json").write_text("{}", encoding="utf-8")
            yield Trained(job.key, str(adapter), len(job.examples))

    async def aclose(self) -> None:
        return


def measure_scoring(folder: Path, rows: int = 10_000) -> Iterator[Measurement]:
    """Score rows with a scorer of 50 ms in a process each, and without it, and say how late everything else was."""
    file = folder / "prompts.jsonl"
    prompts = rows // 4  # two cells of the base model, two of the fine-tune
    file.write_text(
        "".join(json.dumps({"id": f"p{n}", "text": f"What is {n}?"}) + "\n" for n in range(prompts + 20)),
        encoding="utf-8",
    )
    text = SPEC.format(prompts=prompts, file=file)
    before = asyncio.run(_run(folder / "without", text, (LengthScorer(),)))
    found = asyncio.run(_run(folder / "with", text, (LengthScorer(), Slow())))
    note = f"{rows:,} rows, {SECONDS * 1000:.0f} ms each in {WORKERS} processes, {found.seconds:.0f} s"
    against = "the same run without the slow scorer"
    for share, words in ((0.5, "p50"), (0.99, "p99"), (1.0, "max")):
        yield Measurement(
            f"a heartbeat beside a slow scorer is late, {words}",
            percentile(found.late, share),
            "ms",
            target=100 if share == 1.0 else None,
            baseline=percentile(before.late, share),
            against=against,
            note=note,
        )
    yield Measurement(
        "what the event loop works between two heartbeats, max",
        max(found.worked),
        "ms",
        target=100,
        baseline=max(before.worked),
        against=against,
        note="processor time: what other programs take does not count",
    )
    yield Measurement(
        "what a key press asks of the store, beside it, max",
        max(found.asked),
        "ms",
        target=100,
        baseline=max(before.asked),
        against=against,
        note=f"{len(found.asked)} times",
    )


@dataclass(frozen=True, slots=True)
class _Delays:
    """Milliseconds that beats were late, that the loop worked between them, that questions took; seconds in all."""

    late: list[float]
    worked: list[float]
    asked: list[float]
    seconds: float


async def _run(workspace: Path, text: str, scorers: tuple[Scorer, ...]) -> _Delays:
    kept = registry.setting
    registry.setting = lambda *_: _Setting(scorers)  # type: ignore[assignment]
    backend = _Backend()
    try:
        plan = make_plan(parse_spec(text), text, workspace, {"local": backend})  # type: ignore[dict-item]
    finally:
        registry.setting = kept
    late: list[float] = []
    worked: list[float] = []
    asked: list[float] = []
    over = threading.Event()

    def ask() -> None:
        with closing(Reader(workspace)) as reader:
            while not over.wait(0.05):
                start = time.perf_counter()
                row = reader.find_experiment("scoring")
                reader.cells(row.id, "length_chars")
                asked.append((time.perf_counter() - start) * 1000)

    async def beat() -> None:
        while True:
            start, busy = time.perf_counter(), time.thread_time()
            await asyncio.sleep(BEAT)
            late.append((time.perf_counter() - start - BEAT) * 1000)
            worked.append((time.thread_time() - busy) * 1000)

    with closing(Writer(workspace)) as writer:
        ledger = Ledger(plan, writer)
        ledger.begin()
        watcher = threading.Thread(target=ask, daemon=True)
        watcher.start()
        beating = asyncio.ensure_future(beat())
        start = time.perf_counter()
        state = await Runner(plan, ledger, {"local": backend}, lambda _: None).run()  # type: ignore[dict-item]
        seconds = time.perf_counter() - start
        beating.cancel()
        over.set()
        watcher.join()
        ledger.end(state)
    if state != "done":
        raise RuntimeError(f"the run ended as {state}")
    return _Delays(late, worked, asked, seconds)
