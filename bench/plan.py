"""Planning twenty-five thousand jobs: the hashes, and their way into the store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench.measurement import Measurement, median, milliseconds
from windowshift.core.plan.plan import make_plan
from windowshift.core.run.register import register
from windowshift.core.spec import registry
from windowshift.core.spec.spec import parse_spec
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer

GROUPS = ("short", "med_short", "medium", "med_long", "long", "very_long", "no_prefix")
SEEDS = 33  # 763 jobs a seed: 7 x 7 fine-tunes, 7 x 7 x 7 evaluations, base cells, data, and a score job for each

SPEC = """
name: bench
setting: length
model: microworld
backend: local
conditions:
  generate: [{groups}]
  train: [{groups}]
  evaluate: [{groups}]
data: {{size: 200}}
sampling: {{prompts: 200}}
seeds: [{seeds}]
prompts: {{file: {file}}}
"""


def measure_plan(folder: Path, runs: int = 3) -> Iterator[Measurement]:
    """Plan 25,000 jobs from a spec, store them, and ask which are done."""
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(f'{{"id": "p{n}", "text": "What is {n}?"}}\n' for n in range(500)), encoding="utf-8")
    seeds = ", ".join(str(seed) for seed in range(SEEDS))
    text = SPEC.format(groups=", ".join(GROUPS), seeds=seeds, file=prompts)
    backends = {"local": registry.backend("local")}
    planned, stored, looked_up, count = [], [], [], 0
    for run in range(runs):
        start = time.perf_counter()
        plan = make_plan(parse_spec(text), text, folder, backends)
        planned.append((time.perf_counter() - start) * 1000)
        count = len(plan.jobs)
        writer = Writer(folder / f"plan-{run}")
        stored.append(milliseconds(partial(register, plan, writer)))
        reader = Reader(writer.workspace, writer.connection)
        ids = [job.id for job in plan.jobs]
        looked_up.append(milliseconds(partial(reader.job_states, ids)))
        writer.close()
    note = f"{count:,} jobs, {runs} runs"
    totals = [sum(times) for times in zip(planned, stored, looked_up, strict=True)]
    yield Measurement("plan, store and look up 25,000 jobs", median(totals), "ms", target=3000, note=note)
    yield Measurement("  plan them (spec to hashed jobs)", median(planned), "ms", note=note)
    yield Measurement("  put plan, grid and prompts into a new store", median(stored), "ms", note=note)
    yield Measurement("  look up their states", median(looked_up), "ms", note=note)
