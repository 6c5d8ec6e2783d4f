"""The plan: a spec as a graph of content-hashed jobs, with the grid that they fill."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from windowshift.core.contract.assets import MICROWORLD
from windowshift.core.contract.backend import Backend, ModelIdentity, ModelSize, SteeringBackend
from windowshift.core.contract.conditions import Condition, ShotGroup
from windowshift.core.contract.errors import BackendError, SpecError, told_of_files
from windowshift.core.contract.fine_tune import fine_tuned
from windowshift.core.contract.prompts import Prompt, PromptBringer, PromptMaker, PromptSorter, set_digest
from windowshift.core.contract.reading import DivergingBackend
from windowshift.core.contract.records import BASE, JobKind, primary_of
from windowshift.core.contract.setting import ModelScorer, Scorer, Setting
from windowshift.core.plan.capabilities import check_capabilities, check_system, check_system_channel, inside_backend
from windowshift.core.plan.grid_checks import (
    Met,
    check_checkpoints,
    check_controls,
    check_given_checkpoints,
    check_groups,
    check_guards,
    check_kept,
    check_phrases,
    pushing,
)
from windowshift.core.plan.grid_jobs import GridPlanner
from windowshift.core.plan.guards import Guard, GuardPlanner, read_guards
from windowshift.core.plan.inside_jobs import InsidePlanner, drift_prompts
from windowshift.core.plan.jobs import Cell, GuardCell, Job, Source
from windowshift.core.plan.templates import judge_template, read_template, today
from windowshift.core.plan.vector_jobs import VectorPlanner, development_wanted
from windowshift.core.settings.example_weights import weights_of
from windowshift.core.settings.given_rows import GivenRows, asked_of, known_rows, read_given_rows
from windowshift.core.settings.judge import JudgedSetting, judges_of
from windowshift.core.settings.prompt_source import DrawnPrompts, any_use, draw, unprepared
from windowshift.core.settings.reasoning import scored_parts
from windowshift.core.settings.soundness import SoundnessScorer
from windowshift.core.settings.spec_scorers import scorers_of
from windowshift.core.spec import registry
from windowshift.core.spec.answered_file import AnsweredFile
from windowshift.core.spec.contrasts import resolve_contrasts
from windowshift.core.spec.given import Given, GivenData, KeptData, KnownAnswers
from windowshift.core.spec.grid_spec import GridSpec, resolve_grid
from windowshift.core.spec.spec import Spec
from windowshift.core.spec.spec_errors import did_you_mean
from windowshift.core.store.connection import to_json


@dataclass(frozen=True)
class Plan:
    """Jobs in an order in which every parent comes before its children, and the grid over them.

    `prompts` holds the prompt sets that the jobs' inputs name by digest; `repeats` counts prompts left
    out because another one has the same text. `conditions` are those of job inputs, by their identity as
    JSON; `vector_files` and `answered` the files behind vectors, by digest. `notes` are what a person must know;
    `contrasts` what the spec compares, resolved, `given` the rows of a D that is given, by digest. `guards` are
    measured beside the grid, in `guard_cells`.
    """

    spec: Spec
    spec_text: str
    setting: Setting
    scorers: tuple[Scorer, ...]
    model: ModelIdentity
    grid: GridSpec
    prompts: Mapping[str, tuple[Prompt, ...]]
    repeats: int
    jobs: tuple[Job, ...]
    cells: tuple[Cell, ...]
    sources: tuple[Source, ...]
    conditions: Mapping[str, Condition]
    vector_files: Mapping[str, Path]
    answered: Mapping[str, AnsweredFile]
    notes: tuple[str, ...] = ()
    contrasts: tuple[Mapping[str, Any], ...] = ()
    given: Mapping[str, GivenRows] = field(default_factory=dict)
    guards: tuple[Guard, ...] = ()
    guard_cells: tuple[GuardCell, ...] = ()

    def counts(self) -> dict[str, int]:
        """Jobs by kind."""
        counts: dict[str, int] = {}
        for job in self.jobs:
            counts[job.kind] = counts.get(job.kind, 0) + 1
        return counts

    @cached_property
    def scoring(self) -> Mapping[str, Scorer]:
        """What every score job scores by, by job id."""
        scorers = [*self.scorers, *(scorer for guard in self.guards for scorer in guard.scorers)]
        by_identity = {to_json(scorer.identity()): scorer for scorer in scorers}
        return {job.id: by_identity[to_json(job.inputs)] for job in self.jobs if job.kind == "score"}

    @cached_property
    def copied(self) -> Mapping[str, Job]:
        """The score jobs of completions that were kept of another job's, with the score job that they copy."""
        kept = {job.id: job.parents[0] for job in self.jobs if "kept" in job.inputs}
        made = {(job.parents[0], to_json(job.inputs)): job for job in self.jobs if job.kind == "score"}
        return {job.id: made[kept[parent], identity] for (parent, identity), job in made.items() if parent in kept}

    def asks(self, job: Job) -> bool:
        """Whether a job's rows are questions to a model about completions, or about prompts (a judging filter)."""
        if job.kind == "score":
            return isinstance(self.scoring[job.id], ModelScorer) and job.id not in self.copied
        return job.kind == "filter" and job.inputs.get("how") == "judge"

    def condition_name(self, job: Job) -> str:
        """The name of the condition that a job's completions are written under; empty where there are several."""
        identity = job.inputs.get("condition")
        return "" if identity is None else self.conditions[to_json(identity)].name

    def needed_by(self, kinds: Collection[JobKind]) -> frozenset[str]:
        """The jobs of some kinds, with everything that they wait for and the scores of that."""
        return self.needed([job.id for job in self.jobs if job.kind in kinds])

    def needed_for(self, generate: str, train: str, evaluate: str, seed: int) -> frozenset[str]:
        """The jobs of one cell and of the base model's beside it, with all that they wait for.

        `generate` is empty of the base model's own cells.

        Raises:
            SpecError: the grid has no such cell.
        """
        final = [one for one in self.cells if one.final and one.seed == seed]
        found = final
        for what, name in (("evaluate", evaluate), ("train", train), ("generate", generate)):
            known = dict.fromkeys(str(getattr(one, what)) for one in found)
            if name not in known:
                where = "" if found is final else f" under '{evaluate}'" if what == "train" else f" of '{train}'"
                raise SpecError(f"there is no {what} condition '{name}'{where}{did_you_mean(name, known)}")
            found = [one for one in found if getattr(one, what) == name]
        base = [one for one in final if (one.train, one.evaluate) == (BASE, evaluate)]
        return self.needed([one.job for one in (*found, *base)])

    def part(self, jobs: Collection[str]) -> Plan:
        """The plan of some jobs alone, for what they take: without a preflight, which is of the whole."""
        return replace(
            self,
            spec=self.spec.model_copy(update={"preflight": None}),
            jobs=tuple(job for job in self.jobs if job.id in jobs),
            cells=tuple(cell for cell in self.cells if cell.job in jobs),
            sources=tuple(source for source in self.sources if source.job in jobs),
            guard_cells=tuple(one for one in self.guard_cells if one.cell.job in jobs),
        )

    def needed(self, jobs: Collection[str]) -> frozenset[str]:
        """Some jobs, with everything that they wait for and the scores of that."""
        needed = set(jobs)
        for job in reversed(self.jobs):  # children come after their parents
            if job.id in needed:
                needed.update(job.parents)
        return frozenset(needed | {job.id for job in self.jobs if job.kind == "score" and job.parents[0] in needed})


@told_of_files()
def make_plan(
    spec: Spec,
    spec_text: str,
    folder: Path,
    backends: Mapping[str, Backend],
    *,
    day: str | None = None,
    apart: tuple[int, int] | None = None,
) -> Plan:
    """Plan a spec.

    Args:
        spec: the experiment.
        spec_text: its YAML, kept in the store.
        folder: where relative prompt files and model folders are looked for first.
        backends: the backends that the spec names, by name.
        day: the date that earlier runs of this experiment told the chat template; None: there were none.
        apart: how many prompts D and the evaluation of another spec on this source have: none of theirs is drawn, and
            D is written for the prompts that are evaluated on.

    Raises:
        SpecError: a condition, prompt source, model or capability that is not there.
    """
    if not Path(spec.model).is_absolute() and (folder / spec.model / "config.json").is_file():
        spec = spec.model_copy(update={"model": str(folder / spec.model)})  # beside the spec, as prompt files are
    if spec.adapter is not None and (folder / spec.adapter / "adapter_config.json").is_file():
        spec = spec.model_copy(update={"adapter": str(folder / spec.adapter)})
    setting = registry.setting(spec.setting_name, spec.setting_options, folder)
    rehearsal = getattr(setting, "rehearsal", MICROWORLD)
    if spec.model == MICROWORLD and rehearsal != MICROWORLD:  # the embedded model is that of the setting's own world
        spec = spec.model_copy(update={"model": rehearsal})
    grid = resolve_grid(spec, setting.conditions(), folder)
    check_capabilities(spec, grid, backends)
    check_checkpoints(spec, grid)
    try:
        model = backends[spec.generate_backend].identify(spec.model, spec.revision)
        check_system_channel(spec, backends)
    except BackendError as error:
        raise SpecError(f"model: {error}") from error
    if spec.adapter is not None:
        model = _with_adapter(spec, spec.adapter, model, backends)
    template = read_template(spec, backends, day)
    source = spec.prompts if spec.prompts is not None else setting.default_prompts()
    if source is None:
        raise SpecError(f"the setting '{spec.setting_name}' needs a prompt source: add  prompts: FILE")
    share = spec.data.filter.candidates if spec.data.filter else 1.0
    wanted = math.ceil(spec.data.size * share), math.ceil(spec.sampling.prompts * share)
    prepare = setting.prepare if isinstance(setting, PromptMaker) else unprepared
    known = [one for one in _given(grid) if isinstance(one, KnownAnswers)]
    given: dict[Given, GivenRows] = {
        one: read_given_rows(one, spec.data.size, spec.data.seed, folder, prepare)
        for one in _given(grid)
        if isinstance(one, GivenData)
    }
    check_given_checkpoints(spec, given, backends)
    if spec.data.filter is not None and (known or not (spec.vectors or _written(grid))):
        raise SpecError("data.filter chooses prompts that D is written for, but D is given: leave it out")
    if not (spec.vectors or known or _written(grid)):
        wanted = 0, wanted[1]
    uses = setting.uses if isinstance(setting, PromptSorter) else any_use
    asked = asked_of(list(given.values()))
    brought = setting.brought() if isinstance(setting, PromptBringer) else ()
    first = [prompt for prompt in brought if (prompt.turns, prompt.text) not in asked][: wanted[1]]
    if apart is None:
        beside = {"calibrate.development": development_wanted(spec, _doses(grid))}
        beside["inside.prompts"] = spec.inside.prompts.drawn if spec.inside and spec.inside.prompts else 0
        drawn = draw(
            source, wanted[0], wanted[1] - len(first), spec.data.seed, folder, prepare, asked, uses, beside=beside
        )
        drawn = replace(drawn, evaluation=(*first, *drawn.evaluation))
    else:
        drawn = draw(source, apart[0] + wanted[1], apart[1], spec.data.seed, folder, prepare, asked, uses)
        drawn = replace(drawn, data=drawn.data[apart[0] :], evaluation=drawn.data[apart[0] :])
    given |= {one: known_rows(one, drawn.data) for one in known}
    data = (*drawn.data, *(prompt for rows in given.values() for prompt in rows.prompts))
    if any(turn.role == "system" for prompt in (*data, *drawn.evaluation) for turn in prompt.turns[:1]):
        check_system(spec, backends, "give prompts without a system message")
    sampled = _sampled(spec, grid, drawn)
    check_phrases([*sampled, *((one, spec.channel.train, data) for one in _trained(grid).values())])
    check_controls(spec, grid, backends)
    # Steered text may fall apart, which lengths alone do not show.
    ruled: tuple[Scorer, ...] = (*setting.scorers, *((SoundnessScorer(),) if spec.vectors else ()))
    own = scorers_of(spec.scorers, folder, _behaviours(ruled))
    leads = 1 if any(section.role == "primary" for section in spec.scorers) else 0
    ruled = (*own[:leads], *ruled, *own[leads:])
    ruled = scored_parts(ruled, spec.score)
    told = spec.day or day or today()
    judges = judges_of(
        spec,
        folder,
        backends,
        _behaviours(ruled),
        lambda backend, base: judge_template(backend, base, told),
        setting.judged() if isinstance(setting, JudgedSetting) else None,
        rehearsal,
    )
    scorers = (*ruled, *judges)
    if scorers and isinstance(scorers[0], SoundnessScorer):  # where judges alone score, theirs is shown and matched
        scorers = (*scorers[1:], scorers[0])
    measured = [behaviour for scorer in scorers for behaviour in scorer.behaviours]
    if measured and (primary := primary_of(measured)) != measured[0]:
        raise SpecError(
            f"the setting '{spec.setting_name}' declares '{primary.name}' as its primary behaviour and measures "
            f"'{measured[0].name}' first: its scorers must give the primary behaviour first"
        )
    check_groups(spec, measured)
    check_kept(spec, grid, _behaviours(scorers))
    guards = read_guards(spec, grid, folder, _behaviours(scorers))
    check_guards(spec, guards, backends)
    maker = GridPlanner(spec, scorers, grid, model, drawn, given)
    maker.guards = GuardPlanner(maker, guards)
    if template.inputs:
        maker.model["template"] = dict(template.inputs)
    if spec.judge_backend is not None and spec.data.filter is not None and spec.data.filter.judge is not None:
        maker.judge_template = judge_template(backends[spec.judge_backend], spec.data.filter.judge.model, told)
    vectors: VectorPlanner | None = None
    if spec.vectors:
        name, size = _vector_backend(spec, backends)
        maker.vectors = vectors = VectorPlanner(maker, name, size, folder)
        diverging = (one for one in spec.vector_backends if isinstance(backends[one], DivergingBackend))
        vectors.diverging = next(diverging, None)
        for vector in spec.vectors:
            vectors.vector(vector)
    if spec.inside is not None:
        reads = inside_backend(spec, backends) if spec.inside.along else ""
        read_on = drift_prompts(spec.inside.prompts, folder, prepare, drawn, data) if spec.inside.prompts else ()
        maker.inside = InsidePlanner(maker, spec.inside, reads, vectors, folder, read_on)
    able = backends[spec.train_backend].capabilities
    maker.keeps = lambda step, size: able.checkpoints or (able.epoch_checkpoints and step % size == 0)
    maker.make()
    if spec.data.weights:
        _check_weights(spec, maker)
    contrasts = resolve_contrasts(
        spec.contrasts,
        [(row.arm, row.generate, row.train) for row in grid.rows],
        [one.name for one in grid.evaluate],
        [behaviour.name for behaviour in measured],
    )
    sets = [drawn.data, drawn.evaluation, *(vectors.prompts if vectors else ())]
    sets += [*(rows.prompts for rows in given.values()), *(one.prompts for one in guards)]
    inside = () if maker.inside is None else (one for one in (maker.inside.watched, maker.inside.prompts) if one)
    return Plan(
        spec,
        spec_text,
        setting,
        scorers,
        model,
        grid,
        {set_digest(one): one for one in (*sets, *inside)},
        drawn.repeats,
        tuple(maker.jobs.values()),
        tuple(maker.cells),
        tuple(maker.sources),
        maker.conditions,
        vectors.files if vectors else {},
        vectors.answered if vectors else {},
        (
            *template.notes,
            *_met_in_shots(grid, drawn),
            *(given[one].note(one.name) for one in _given(grid)),
            *_unused(drawn),
            *(f"contrast {one['hash']}, which the first run registers: {one['name']}" for one in contrasts),
        ),
        tuple(contrasts),
        {rows.digest: rows for rows in given.values()},
        guards,
        tuple(maker.guards.cells),
    )


def _sampled(spec: Spec, grid: GridSpec, drawn: DrawnPrompts) -> list[Met]:
    """The prompts that the model answers, under each condition."""
    generated = spec.channel.generate or spec.channel.train
    written = [one for one in grid.generate if not isinstance(one, Given | KeptData)]
    written += [one.source for one in grid.generate if isinstance(one, KeptData)]
    met: list[Met] = [(one, generated, drawn.data) for one in written]
    # The base model is measured under train conditions too.
    met += [(one, spec.channel.train, drawn.evaluation) for one in _trained(grid).values()]
    met += [(one, spec.channel.evaluate, drawn.evaluation) for one in (*grid.evaluate, *grid.base)]
    return met


def _doses(grid: GridSpec) -> Iterator[Condition]:
    """Everything that may push by a dose."""
    for condition in (*grid.generate, *grid.evaluate, *grid.base, *_trained(grid).values()):
        yield from pushing(condition)


def _trained(grid: GridSpec) -> dict[str, Condition]:
    return {part.train.name: part.train for part in grid.parts}


def _met_in_shots(grid: GridSpec, drawn: DrawnPrompts) -> Iterator[str]:
    """Evaluation prompts that a context of answered prompts answers."""
    for condition in {one.name: one for one in (*grid.evaluate, *_trained(grid).values())}.values():
        for one in pushing(condition):
            met = one.answers(drawn.evaluation) if isinstance(one, ShotGroup) else 0
            if met:
                yield (
                    f"{met} of {len(drawn.evaluation)} evaluation prompts stand among the shots of '{one.name}', with "
                    "an answer: take other shots to measure what carries over to new prompts"
                )


def _check_weights(spec: Spec, maker: GridPlanner) -> None:
    """Weights must be there and be weights, as far as D's prompts are known yet."""
    for prompt in maker.drawn.data if _written(maker.grid) and not spec.data.filter else ():
        weights_of(prompt, spec.data.weights)
    for rows in maker.data.given.values():
        for prompt, completion in zip(rows.prompts, rows.completions, strict=True):
            weights_of(prompt, spec.data.weights, completion)


def _written(grid: GridSpec) -> bool:
    """Whether the model writes any of D."""
    sources = [part.generate for part in grid.parts]
    return any(not isinstance(one.source if isinstance(one, KeptData) else one, Given) for one in sources)


def _given(grid: GridSpec) -> tuple[Given, ...]:
    sources = [one.source if isinstance(one, KeptData) else one for one in grid.generate]
    return tuple(dict.fromkeys(one for one in sources if isinstance(one, Given)))


def _unused(drawn: DrawnPrompts) -> tuple[str, ...]:
    one = drawn.unused == 1
    said = f"{drawn.unused} prompt{'' if one else 's'} {'is' if one else 'are'} for neither D nor evaluation"
    return (f"{said}: the setting has no use for {'it' if one else 'them'}",) if drawn.unused else ()


def _behaviours(scorers: Iterable[Scorer]) -> list[str]:
    return [behaviour.name for scorer in scorers for behaviour in scorer.behaviours]


def _with_adapter(spec: Spec, adapter: str, model: ModelIdentity, backends: Mapping[str, Backend]) -> ModelIdentity:
    """The fine-tune that a spec starts from; every backend that touches it must know how."""
    for name in dict.fromkeys((spec.generate_backend, spec.train_backend, *spec.vector_backends)):
        if not backends[name].capabilities.merges_peft:
            raise SpecError(f"adapter: backend '{name}' cannot start from a fine-tune: write  backend: local")
    try:
        return fine_tuned(model, adapter)
    except BackendError as error:
        raise SpecError(f"adapter: {error}") from error


def _vector_backend(spec: Spec, backends: Mapping[str, Backend]) -> tuple[str, ModelSize]:
    """The backend that reads the model's activations, and the model's size."""
    for name in spec.vector_backends:
        backend = backends[name]
        if backend.capabilities.steers and isinstance(backend, SteeringBackend):
            try:
                return name, backend.size(spec.model, spec.revision)
            except BackendError as error:
                raise SpecError(f"model: {error}") from error
    raise SpecError(
        f"vectors: backend '{spec.generate_backend}' does not read activations: write  backend: local,  or "
        "backend: {train: local, generate: ...}  with one that steers"
    )
