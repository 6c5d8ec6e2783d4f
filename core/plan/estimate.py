"""What is left of a plan: jobs, rows, tokens, money, and time from what this workspace has measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from windowshift.core.contract.records import SAMPLING
from windowshift.core.plan.cost import Cost, Costs, PriceOf
from windowshift.core.plan.plan import Plan
from windowshift.core.store.connection import store_path
from windowshift.core.store.reader import Reader


@dataclass(frozen=True, slots=True)
class KindEstimate:
    """What is left of one kind of job: jobs done and in all, rows (or examples) to do, their cost and seconds.

    `seconds` is None where nothing like it has run yet.
    """

    done: int
    total: int
    rows: int
    cost: Cost
    seconds: float | None


@dataclass(frozen=True, slots=True)
class PlanEstimate:
    """What is left by kind of job, and in all.

    `cost.usd` is 0 for a backend without prices (your own machine), and None where a price is not known.
    """

    kinds: dict[str, KindEstimate]
    completions: int
    examples: int
    cost: Cost
    seconds: float | None

    @property
    def jobs(self) -> dict[str, tuple[int, int]]:
        """Jobs by kind as (done, all)."""
        return {kind: (found.done, found.total) for kind, found in self.kinds.items()}

    @property
    def usd(self) -> float | None:
        """What is left costs at most; None: a price is not known."""
        return self.cost.usd

    def to_json(self) -> dict[str, Any]:
        """By kind, as JSON."""
        return {
            kind: {"done": one.done, "total": one.total, "rows": one.rows, **asdict(one.cost), "seconds": one.seconds}
            for kind, one in self.kinds.items()
        }


def estimate(
    plan: Plan,
    workspace: Path,
    *,
    prices: PriceOf | None = None,
    batched: Iterable[str] = (),
) -> PlanEstimate:
    """Compare a plan with a workspace (which need not exist); nothing is written.

    Args:
        plan: the plan.
        workspace: the folder of the store.
        prices: what models cost, by the name of the backend; one that is not there costs nothing.
        batched: the backends whose completions go through the Batch API.
    """
    reader = Reader(workspace) if store_path(workspace).is_file() else None
    try:
        states = reader.job_states([job.id for job in plan.jobs]) if reader else {}
        costs = Costs(plan, prices or {}, frozenset(batched), reader)
        done: dict[str, list[int]] = {}
        left: dict[str, Cost] = {}
        for job in plan.jobs:
            count = done.setdefault(job.kind, [0, 0, 0])
            finished = states.get(job.id) == "done"
            count[0] += finished
            count[1] += 1
            left.setdefault(job.kind, Cost())
            asks = "sampling" in job.inputs and job.id not in plan.copied
            if not finished and (job.kind == "train" or asks):
                count[2] += job.total
                left[job.kind] += costs.of(job)
        kinds = {
            kind: KindEstimate(finished, total, rows, left[kind], _seconds(reader, plan.model.fingerprint, kind, rows))
            for kind, (finished, total, rows) in done.items()
        }
        working = [one for one in kinds.values() if one.rows]
        seconds = [one.seconds for one in working]
        known = [value for value in seconds if value is not None]
        return PlanEstimate(
            kinds,
            sum(one.rows for kind, one in kinds.items() if kind != "train"),
            kinds["train"].rows if "train" in kinds else 0,
            sum((one.cost for one in working), Cost()),
            sum(known) if len(known) == len(seconds) and reader else None,
        )
    finally:
        if reader:
            reader.close()


def _seconds(reader: Reader | None, fingerprint: str, kind: str, rows: int) -> float | None:
    """Seconds for rows at the speed that finished jobs of the same model had here; None: none has."""
    if reader is None:
        return None
    if not rows:
        return 0.0
    alike = (kind,) if kind in ("train", "score") else SAMPLING
    spans = reader.job_spans(fingerprint, alike)
    busy = _union((start, end) for start, end, _ in spans)
    done = sum(count for _, _, count in spans)
    return rows * busy / done if done and busy else None


def _union(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals: jobs of one batch overlap."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        if end > reached:
            total += end - max(start, reached)
            reached = end
    return total
