"""The rows of a plan's grid: what each takes to be trained and evaluated, and what is there without any training."""

from __future__ import annotations

from dataclasses import dataclass

from windowshift.core.contract.records import BASE
from windowshift.core.plan.plan import Plan


@dataclass(frozen=True, slots=True, order=True)
class ArmRow:
    """One train condition of an arm, on one D, over all seeds."""

    arm: str
    generate: str
    train: str


def untrained_jobs(plan: Plan) -> frozenset[str]:
    """The jobs that wait for no training: of the base model, of D, and their scores."""
    after: set[str] = set()
    for job in plan.jobs:  # children come after their parents
        if job.kind == "train" or not after.isdisjoint(job.parents):
            after.add(job.id)
    return frozenset(job.id for job in plan.jobs if job.id not in after)


def jobs_of_row(plan: Plan, row: ArmRow) -> frozenset[str]:
    """All that a row takes: its cells of every seed and checkpoint, those of guards, and what they wait for.

    What is read inside its fine-tunes is a part of it.
    """
    cells = [*plan.cells, *(one.cell for one in plan.guard_cells)]
    found = plan.needed([one.job for one in cells if ArmRow(one.arm, one.generate, one.train) == row])
    return found | plan.needed([job.id for job in plan.jobs if job.inputs.get("trained") in found])


def rows_of_contrasts(plan: Plan) -> tuple[ArmRow, ...]:
    """The rows that the contrasts of the spec compare, in their order."""
    found: dict[ArmRow, None] = {}
    for entry in plan.contrasts:
        for train in (entry["of"], entry["against"]):
            if train != BASE:
                found[ArmRow(entry["arm"], entry["generate"], train)] = None
    return tuple(found)
