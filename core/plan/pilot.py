"""The pilot of a plan: those of its own jobs that tell whether the rest is worth its money, and how far they go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from windowshift.core.contract.conditions import is_neutral
from windowshift.core.contract.records import BASE
from windowshift.core.plan.jobs import Job
from windowshift.core.plan.plan import Plan
from windowshift.core.spec.grid_spec import TrainRow
from windowshift.core.store.connection import store_path
from windowshift.core.store.reader import Reader


@dataclass(frozen=True, slots=True)
class Pilot:
    """The jobs of a pilot, by id: those of the grid, so that nothing is done twice.

    `rows` says of a job that is not done to its end how many of its first rows are. The others are done whole: vectors,
    doses and filters are what they are over all of their rows alone. D that is given, or kept by score, is no part.

    `training` is the second step of a pilot that trains; None: it does not.
    """

    seeds: tuple[int, ...]
    prompts: int
    jobs: frozenset[str]
    rows: Mapping[str, int]
    training: PilotTraining | None = None


@dataclass(frozen=True, slots=True)
class PilotTraining:
    """What a pilot trains once its gates on the base model have passed: rows of the grid, on all of their D.

    A pilot on less than D would show the noise of other trainings than those of the grid, and be thrown away. `trained`
    has (arm, generation condition, train condition); `jobs` and `rows` are as in `Pilot`: the trainings with everything
    that they wait for, whole, and the cells of the rows as far as the pilot goes.
    """

    trained: tuple[tuple[str, str, str], ...]
    jobs: frozenset[str]
    rows: Mapping[str, int]


def pilot_of(plan: Plan) -> Pilot | None:
    """The pilot that a plan's spec asks for: the base model under eval and train conditions, and the D that is written.

    None where it asks for none.
    """
    section = plan.spec.preflight
    if section is None:
        return None
    seeds = tuple(plan.spec.seeds[: section.piloted])
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
    found = frozenset(roots | whole | {job.id for job in scores})
    training = _training(plan, seeds, section.prompts * samples) if section.trains and len(seeds) > 1 else None
    return Pilot(seeds, section.prompts, found, rows, training)


def _training(plan: Plan, seeds: tuple[int, ...], limit: int) -> PilotTraining | None:
    """The rows that a pilot trains; None where the grid trains nothing."""
    chosen = tuple(dict.fromkeys((row.arm, row.generate, row.train) for row in _chosen(plan.grid.rows)))
    cells = [
        cell
        for cell in plan.cells
        if cell.final and cell.seed in seeds and (cell.arm, cell.generate, cell.train) in chosen
    ]
    if not cells:
        return None
    jobs = {job.id: job for job in plan.jobs}
    evaluated = {cell.job for cell in cells}
    needed = plan.needed(evaluated)
    # The cells of the pilot stop after its rows; one that a later stage or a dose waits for is done whole.
    waited = {parent for one in needed if jobs[one].kind != "score" for parent in jobs[one].parents}
    rows = {one: limit for one in evaluated - waited if limit < jobs[one].total}
    rows |= {
        one: rows[jobs[one].parents[0]] for one in needed if jobs[one].kind == "score" and jobs[one].parents[0] in rows
    }
    return PilotTraining(chosen, needed, rows)


def _chosen(rows: Sequence[TrainRow]) -> Iterator[TrainRow]:
    """Of the first D: a training that nothing pushes, and of each arm the first one that something does."""
    first = [row for row in rows if row.generate == rows[0].generate]
    pushed = [row for row in first if not all(is_neutral(part.train) for part in row.parts)]
    yield from [row for row in first if row not in pushed][:1]
    for arm in dict.fromkeys(row.arm for row in pushed):
        yield next(row for row in pushed if row.arm == arm)


def pilot_plan(plan: Plan, pilot: Pilot, workspace: Path) -> Plan:
    """A plan of what is left of a pilot, to say what it takes: with the ids of the whole plan, and fewer rows."""
    training = pilot.training
    later = training.jobs if training else frozenset()
    further = training.rows if training else {}
    # What the second step does whole, or further, the first one has begun.
    rows = {one: count for one, count in pilot.rows.items() if one not in later} | dict(further)
    jobs = [
        replace(job, total=min(job.total, rows.get(job.id, job.total)))
        for job in plan.jobs
        if job.id in pilot.jobs or job.id in later
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
