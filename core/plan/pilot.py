"""The pilot of a plan: those of its own jobs that tell whether the rest is worth its money, and how far they go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from windowshift.core.contract.records import BASE
from windowshift.core.plan.jobs import Job
from windowshift.core.plan.plan import Plan
from windowshift.core.store.connection import store_path
from windowshift.core.store.reader import Reader


@dataclass(frozen=True, slots=True)
class Pilot:
    """The jobs of a pilot, by id: those of the grid, so that nothing is done twice.

    `rows` says of a job that is not done to its end how many of its first rows are. The others are done whole: vectors,
    doses and filters are what they are over all of their rows alone. D that is given, or kept by score, is no part.
    """

    seeds: tuple[int, ...]
    prompts: int
    jobs: frozenset[str]
    rows: Mapping[str, int]


def pilot_of(plan: Plan) -> Pilot | None:
    """The pilot that a plan's spec asks for: the base model under eval and train conditions, and the D that is written.

    None where it asks for none.
    """
    section = plan.spec.preflight
    if section is None:
        return None
    seeds = tuple(plan.spec.seeds[: section.seeds])
    jobs = {job.id: job for job in plan.jobs}
    wanted = [cell.job for cell in plan.cells if cell.train == BASE and cell.seed in seeds]
    for source in plan.sources:
        if source.seed in seeds:
            data = jobs[source.job]
            wanted += [source.reference, data.parents[0] if "kept" in data.inputs else data.id]
    roots = {one for one in wanted if "sampling" in jobs[one].inputs}
    whole: set[str] = set()
    for job in reversed(plan.jobs):  # children come after their parents
        if job.id in roots or job.id in whole:
            whole.update(job.parents)
    samples = plan.spec.sampling.samples
    rows = {}
    for one in roots - whole:
        limit = section.prompts * (samples if jobs[one].kind == "evaluate" else 1)
        if limit < jobs[one].total:
            rows[one] = limit
    scores = [job for job in plan.jobs if job.kind == "score" and job.parents[0] in roots | whole]
    rows |= {job.id: rows[job.parents[0]] for job in scores if job.parents[0] in rows}
    return Pilot(seeds, section.prompts, frozenset(roots | whole | {job.id for job in scores}), rows)


def pilot_plan(plan: Plan, pilot: Pilot, workspace: Path) -> Plan:
    """A plan of what is left of a pilot, to say what it takes: with the ids of the whole plan, and fewer rows."""
    jobs = [
        replace(job, total=min(job.total, pilot.rows.get(job.id, job.total)))
        for job in plan.jobs
        if job.id in pilot.jobs
    ]
    there = _rows_there(jobs, workspace)
    return replace(plan, jobs=tuple(job for job in jobs if there.get(job.id, 0) < job.total or not job.total))


def _rows_there(jobs: list[Job], workspace: Path) -> dict[str, int]:
    """How many rows of some jobs are in a store."""
    if not store_path(workspace).is_file():
        return {}
    reader = Reader(workspace)
    try:
        numbers = reader.job_numbers([job.id for job in jobs])
        return {one: len(reader.rows_done(number)) for one, number in numbers.items()}
    finally:
        reader.close()
