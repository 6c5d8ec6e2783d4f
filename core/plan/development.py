"""Development: a plan that looks at the train conditions of a spec on prompts that neither D nor the evaluation has."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from windowshift.core.contract.backend import Backend
from windowshift.core.contract.conditions import NO_PREFIX, Condition, NoPrefix, is_neutral
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.records import BASE
from windowshift.core.contract.selective import Selective
from windowshift.core.plan.jobs import Cell, Job
from windowshift.core.plan.plan import Plan, make_plan
from windowshift.core.spec.dose import SteeringDose
from windowshift.core.spec.given import GivenData, KeptData, KnownAnswers
from windowshift.core.spec.spec import Spec

SUFFIX = ".select"
"""What the experiment that a selection is made by is called after the spec's own name."""


@dataclass(frozen=True, slots=True)
class Development:
    """The base model under the candidates, and D's answers, on development prompts.

    `candidates` are the train conditions, prefixes and doses, with the base job of each; `plain` is the condition
    without a push, `answers` the job that writes answers as D has them, `source` the condition they are written
    under.
    """

    plan: Plan
    candidates: Mapping[str, tuple[Condition, Job]]
    plain: str
    answers: Job
    source: Condition


def development_plan(
    spec: Spec,
    text: str,
    folder: Path,
    backends: Mapping[str, Backend],
    prompts: int,
    *,
    generate: str | None = None,
    day: str | None = None,
) -> Development:
    """Plan it: jobs of an experiment of its own, NAME.select, without a training.

    Args:
        spec: whose train conditions are the candidates.
        text: its YAML.
        folder: as in `make_plan`.
        backends: as in `make_plan`.
        prompts: how many development prompts.
        generate: the generation condition whose answers are looked at; None: the first that is written.
        day: as in `make_plan`.

    Raises:
        SpecError: as `make_plan`; there is nothing to choose among, D is given or written under a dose, or the source
            has too few prompts.
    """
    whole = make_plan(spec, text, folder, backends, day=day) if spec.vectors else None
    doses = _doses(whole) if whole else {}
    share = spec.data.filter.candidates if spec.data.filter else 1.0
    inside = spec.inside.prompts.drawn if spec.inside and spec.inside.prompts else 0
    beside = _solved_on(whole) + inside
    apart = math.ceil(spec.data.size * share), math.ceil(spec.sampling.prompts * share) + beside
    steered = {one.name for one in _all_conditions(whole) if one.arm == "steering"} if whole else set()
    generate_by, train, evaluate = (
        [one for one in getattr(spec.conditions, part) if not _steers(one, steered)]
        for part in ("generate", "train", "evaluate")
    )
    if not generate_by:
        raise SpecError("select reads D's answers as they are written without a vector, and D is written under a dose")
    conditions = {
        "generate": generate_by,
        "train": train or [NO_PREFIX],
        "evaluate": [NO_PREFIX, *(one for one in evaluate if one != NO_PREFIX)],
        **({"base": [], "cross": True} if whole else {}),
    }
    narrow = spec.model_copy(
        update={
            "name": f"{spec.name[: 80 - len(SUFFIX)]}{SUFFIX}",
            "data": spec.data.model_copy(update={"size": prompts, "filter": None}),
            "sampling": spec.sampling.model_copy(update={"prompts": prompts}),
            "conditions": spec.conditions.model_copy(update=conditions),
            "seeds": spec.seeds[:1],
            "checkpoints": None, "guards": [], "contrasts": [], "preflight": None, "selection": None, "vectors": {},
            "inside": None,
        }
    )  # fmt: skip
    plan = make_plan(narrow, text, folder, backends, day=day, apart=apart)
    written = [one for one in plan.grid.generate if not isinstance(one, GivenData | KeptData | KnownAnswers)]
    source = next((one for one in written if generate in (None, one.name)), None)
    if source is None:
        known = ", ".join(one.name for one in written) or "none"
        raise SpecError(
            f"select needs a D that the model writes, to have such answers to other prompts (there: {known})"
        )
    jobs = {job.id: job for job in plan.jobs}
    found: dict[str, tuple[Condition, Job]] = {}
    for row in plan.grid.rows:
        part = row.parts[0]
        if len(row.stages) > 1 or len(row.parts) > 1 or isinstance(part.train, Selective) or is_neutral(part.train):
            continue
        reference = next(one.reference for one in plan.sources if one.part_train == part.train.name)
        found.setdefault(part.train.name, (part.train, jobs[reference]))
    if len(found) + len(doses) < 2:
        raise SpecError(
            "select ranks the prefixes and doses under conditions.train, and there are fewer than two: add candidates"
        )
    plain = next(jobs[cell.job] for cell in plan.cells if cell.train == BASE and cell.evaluate == NO_PREFIX)
    answers = next(job for job in plan.jobs if job.kind == "generate" and plan.condition_name(job) == source.name)
    sampled = [answers, plain, *(job for _, job in found.values())]
    needed = {job.id for job in sampled}
    for job in reversed(plan.jobs):
        if job.id in needed:
            needed.update(job.parents)
    kept = [job for job in plan.jobs if job.id in needed or (job.kind == "score" and job.parents[0] in needed)]
    if whole is not None:
        plan = replace(plan, jobs=tuple(kept))
        plan, dosed = _with_doses(plan, plain, whole, doses)
        found |= dosed
        kept = list(plan.jobs)
    cells = [Cell("prefix", "", BASE, NO_PREFIX, narrow.seeds[0], 0, True, plain.id)]
    cells += [Cell(one.arm, "", BASE, name, narrow.seeds[0], 0, True, job.id) for name, (one, job) in found.items()]
    evaluated = (NoPrefix(), *(condition for condition, _ in found.values()))
    grid = replace(plan.grid, rows=(), evaluate=evaluated, base=())
    plan = replace(plan, grid=grid, jobs=tuple(kept), cells=tuple(cells), sources=())
    return Development(plan, found, NO_PREFIX, answers, source)


def _doses(whole: Plan) -> dict[str, tuple[SteeringDose, Job]]:
    """The doses that a spec's rows are trained under, controls left out, with the base job of each."""
    jobs = {job.id: job for job in whole.jobs}
    found: dict[str, tuple[SteeringDose, Job]] = {}
    for row in whole.grid.rows:
        one = row.parts[0].train
        if len(row.stages) > 1 or len(row.parts) > 1 or not isinstance(one, SteeringDose) or is_neutral(one):
            continue
        vectors = whole.spec.vectors
        controls = [name for name in one.vectors if name in vectors and vectors[name].control is not None]
        if one.control is None and not controls:
            reference = next(each.reference for each in whole.sources if each.part_train == one.name)
            found.setdefault(one.name, (one, jobs[reference]))
    return found


def _with_doses(
    plan: Plan, plain: Job, whole: Plan, doses: Mapping[str, tuple[SteeringDose, Job]]
) -> tuple[Plan, dict[str, tuple[Condition, Job]]]:
    """A plan with the base model under doses on its own prompts; vectors, layers and alphas are the whole spec's.

    They are jobs of the whole, so that the run that follows has them already.
    """
    kinds = {job.id: job.kind for job in whole.jobs}
    scores = [job for job in plan.jobs if job.kind == "score" and job.parents[0] == plain.id]
    found: dict[str, tuple[Condition, Job]] = {}
    more: list[Job] = []
    for name, (condition, reference) in doses.items():
        before = tuple(parent for parent in reference.parents if kinds[parent] != "filter")
        inputs = {**plain.inputs, "condition": reference.inputs["condition"], "channel": reference.inputs["channel"]}
        job = Job("evaluate", reference.label, inputs, (*plain.parents, *before), plain.total)
        found[name] = condition, job
        more.append(job)
        made = {plain.id: job.id}
        for score in scores:
            label = score.label.replace(plain.label, job.label)
            parents = tuple(made.get(parent, parent) for parent in score.parents)
            more.append(Job("score", label, score.inputs, parents, score.total))
            made[score.id] = more[-1].id
    wanted = whole.needed([parent for _, job in found.values() for parent in job.parents if parent in kinds])
    there = {job.id for job in plan.jobs}
    first = [job for job in whole.jobs if job.id in wanted and job.id not in there]
    return (
        replace(
            plan,
            scorers=whole.scorers,
            jobs=(*first, *plan.jobs, *more),
            prompts={**whole.prompts, **plan.prompts},
            conditions={**whole.conditions, **plan.conditions},
            vector_files=whole.vector_files,
            answered=whole.answered,
        ),
        found,
    )


def _solved_on(whole: Plan | None) -> int:
    """How many prompts of the source its doses are solved on: they are nobody else's."""
    jobs = whole.jobs if whole else ()
    return max((job.inputs["prompts"]["last"] for job in jobs if job.inputs.get("for") == "development"), default=0)


def _all_conditions(whole: Plan) -> tuple[Condition, ...]:
    grid = whole.grid
    return (*grid.generate, *grid.evaluate, *grid.base, *(part.train for part in grid.parts))


def _steers(entry: Any, steered: Collection[str]) -> bool:
    """Whether an entry of a spec's conditions is a dose, or is made of one."""
    if isinstance(entry, str):
        return entry in steered
    return bool(steered) and any(key in entry for key in ("steer", "mix", "stages", "where"))
