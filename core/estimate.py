"""What is left of a plan: jobs done and to do, rows, cost, and time from what this workspace has measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from windowshift.core.plan import Plan
from windowshift.core.reader import Reader
from windowshift.core.records import SAMPLING
from windowshift.core.store import store_path


@dataclass(frozen=True, slots=True)
class Estimate:
    """Jobs by kind as (done, all); completions and training examples to do; seconds, None if unknown.

    `usd` is 0 for a backend without prices (your own machine).
    """

    jobs: dict[str, tuple[int, int]]
    completions: int
    examples: int
    seconds: float | None
    usd: float | None


def estimate(plan: Plan, workspace: Path, *, priced: bool) -> Estimate:
    """Compare a plan with a workspace (which need not exist); nothing is written."""
    reader = Reader(workspace) if store_path(workspace).is_file() else None
    try:
        states = reader.job_states([job.id for job in plan.jobs]) if reader else {}
        jobs: dict[str, tuple[int, int]] = {}
        completions = examples = 0
        for job in plan.jobs:
            done, total = jobs.get(job.kind, (0, 0))
            finished = states.get(job.id) == "done"
            jobs[job.kind] = (done + finished, total + 1)
            if not finished and job.kind == "train":
                examples += job.total
            elif not finished and job.kind in SAMPLING:
                completions += job.total
        seconds = _seconds(reader, plan.model.fingerprint, completions, examples) if reader else None
        return Estimate(jobs, completions, examples, seconds, None if priced else 0.0)
    finally:
        if reader:
            reader.close()


def _seconds(reader: Reader, fingerprint: str, completions: int, examples: int) -> float | None:
    """Seconds for rows at the speed that finished jobs of the same model had here; None: none has."""
    total = 0.0
    for rows, kinds in ((completions, SAMPLING), (examples, ("train",))):
        if not rows:
            continue
        spans = reader.job_spans(fingerprint, kinds)
        busy = _union((start, end) for start, end, _ in spans)
        done = sum(count for _, _, count in spans)
        if not done or not busy:
            return None
        total += rows * busy / done
    return total


def _union(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals: jobs of one batch overlap."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        if end > reached:
            total += end - max(start, reached)
            reached = end
    return total
