"""Development: a plan that looks at the train conditions of a spec on prompts that neither D nor the evaluation has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from windowshift.core.contract.backend import Backend
from windowshift.core.contract.conditions import NO_PREFIX, Condition, NoPrefix, is_neutral
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.records import BASE
from windowshift.core.contract.selective import Selective
from windowshift.core.plan.jobs import Cell, Job
from windowshift.core.plan.plan import Plan, make_plan
from windowshift.core.spec.given import GivenData, KeptData, KnownAnswers
from windowshift.core.spec.spec import Spec

SUFFIX = ".select"
"""What the experiment that a selection is made by is called after the spec's own name."""


@dataclass(frozen=True, slots=True)
class Development:
    """The base model under the candidates, and D's answers, on development prompts.

    `candidates` are the train conditions, with the base job of each; `plain` is the condition without a push, `answers`
    the job that writes answers as D has them, `source` the condition they are written under.
    """

    plan: Plan
    candidates: Mapping[str, Condition]
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
        SpecError: as `make_plan`; there is nothing to choose among, D is given, or the source has too few prompts.
    """
    if spec.vectors:
        raise SpecError("select ranks prefixes: a dose is of a vector that D's own prompts make; leave vectors out")
    share = spec.data.filter.candidates if spec.data.filter else 1.0
    apart = math.ceil(spec.data.size * share), math.ceil(spec.sampling.prompts * share)
    evaluate = [one for one in spec.conditions.evaluate if one != NO_PREFIX]
    narrow = spec.model_copy(
        update={
            "name": f"{spec.name[: 80 - len(SUFFIX)]}{SUFFIX}",
            "data": spec.data.model_copy(update={"size": prompts, "filter": None}),
            "sampling": spec.sampling.model_copy(update={"prompts": prompts}),
            "conditions": spec.conditions.model_copy(update={"evaluate": [NO_PREFIX, *evaluate]}),
            "seeds": spec.seeds[:1],
            "checkpoints": None, "guards": [], "contrasts": [], "preflight": None, "selection": None,
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
    if len(found) < 2:
        raise SpecError(
            "select ranks the prefixes under conditions.train, and there are fewer than two: add candidates"
        )
    plain = next(jobs[cell.job] for cell in plan.cells if cell.train == BASE and cell.evaluate == NO_PREFIX)
    answers = next(job for job in plan.jobs if job.kind == "generate" and plan.condition_name(job) == source.name)
    sampled = [answers, plain, *(job for _, job in found.values())]
    needed = {job.id for job in sampled}
    for job in reversed(plan.jobs):
        if job.id in needed:
            needed.update(job.parents)
    kept = [job for job in plan.jobs if job.id in needed or (job.kind == "score" and job.parents[0] in needed)]
    named = [(NO_PREFIX, plain), *((name, job) for name, (_, job) in found.items())]
    cells = [Cell("prefix", "", BASE, name, narrow.seeds[0], 0, True, job.id) for name, job in named]
    evaluated = (NoPrefix(), *(condition for condition, _ in found.values()))
    grid = replace(plan.grid, rows=(), evaluate=evaluated, base=())
    plan = replace(plan, grid=grid, jobs=tuple(kept), cells=tuple(cells), sources=())
    return Development(plan, {name: one for name, (one, _) in found.items()}, NO_PREFIX, answers, source)
