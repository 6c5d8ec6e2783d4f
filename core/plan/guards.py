"""Guards as they are planned: the prompts, scorers and conditions of each, and the jobs that measure them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from windowshift.core.contract.conditions import NO_PREFIX, Condition, NoPrefix
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Sampling
from windowshift.core.contract.prompts import Prompt, PromptMaker, PromptSorter, set_digest
from windowshift.core.contract.records import BASE, Behaviour
from windowshift.core.contract.setting import Scorer
from windowshift.core.plan.job_maker import JobMaker
from windowshift.core.plan.jobs import Cell, GuardCell, Job
from windowshift.core.settings.prompt_source import any_use, draw, unprepared
from windowshift.core.spec import registry
from windowshift.core.spec.grid_spec import GridSpec, TrainRow
from windowshift.core.spec.guard_section import GuardSection
from windowshift.core.spec.spec import Spec
from windowshift.core.spec.spec_errors import did_you_mean


@dataclass(frozen=True, slots=True)
class Guard:
    """One guard: its setting's name, what scores it, the prompts it asks, how, and under which conditions."""

    name: str
    scorers: tuple[Scorer, ...]
    prompts: tuple[Prompt, ...]
    sampling: Sampling
    conditions: tuple[Condition, ...]

    @property
    def behaviours(self) -> tuple[Behaviour, ...]:
        """What it measures, each with the role `guard`, whatever its role in its own setting."""
        measured = [behaviour for scorer in self.scorers for behaviour in scorer.behaviours]
        return tuple(replace(one, role="guard", group="", panel="", guard=self.name) for one in measured)


def read_guards(spec: Spec, grid: GridSpec, folder: Path, taken: Sequence[str]) -> tuple[Guard, ...]:
    """The guards of a spec.

    Args:
        spec: the experiment.
        grid: its conditions.
        folder: where prompt files are looked for first.
        taken: the behaviours that are measured already.

    Raises:
        SpecError: there is no such setting or condition, its prompts cannot be read or are too few, or a behaviour of
            its is measured already.
    """
    found: list[Guard] = []
    measured = set(taken)
    for place, entry in enumerate(spec.guards):
        section = GuardSection(setting=entry) if isinstance(entry, str) else entry
        where = f"guards[{place}]"
        try:
            guard = _guard(section, spec, grid, folder, where)
        except SpecError as error:
            raise SpecError(str(error) if str(error).startswith(where) else f"{where}: {error}") from error
        for behaviour in guard.behaviours:
            if behaviour.name in measured:
                raise SpecError(
                    f"{where}: '{behaviour.name}' is measured already: a guard is another setting than the "
                    "experiment's, named once"
                )
            measured.add(behaviour.name)
        found.append(guard)
    return tuple(found)


def _guard(section: GuardSection, spec: Spec, grid: GridSpec, folder: Path, where: str) -> Guard:
    name = section.setting_name
    setting = registry.setting(name, section.setting_options, folder)
    if not setting.scorers:
        raise SpecError(f"the setting '{name}' is scored by judges alone, which a guard does not ask")
    source = section.prompts if section.prompts is not None else setting.default_prompts()
    if source is None:
        raise SpecError(f"the setting '{name}' needs a prompt source: add  prompts: FILE")
    prepare = setting.prepare if isinstance(setting, PromptMaker) else unprepared
    asked = section.sampling.prompts
    count = spec.sampling.prompts if asked is None else asked
    uses = setting.uses if isinstance(setting, PromptSorter) else any_use
    drawn = draw(source, 0, count, spec.data.seed, folder, prepare, (), uses, all_if_fewer=asked is None)
    known = {one.name: one for one in (*grid.evaluate, *grid.base)}
    known.setdefault(NO_PREFIX, NoPrefix())
    for wanted in section.evaluate or ():
        if wanted not in known:
            raise SpecError(
                f"{where}.evaluate: '{wanted}' is not among conditions.evaluate{did_you_mean(wanted, known)}"
            )
    conditions = tuple(known[one] for one in dict.fromkeys(section.evaluate or (NO_PREFIX,)))
    # An experiment of one-token answers would cut off what a guard asks for.
    usual: int = getattr(setting, "answer_tokens", spec.sampling.max_tokens)
    sampling = section.sampling.resolved(spec.sampling.model_copy(update={"max_tokens": usual}))
    return Guard(name, tuple(setting.scorers), drawn.evaluation, sampling, conditions)


class GuardPlanner:
    """Makes the jobs of guards: the base model's answers, and those of every fine-tune at the end of its training."""

    def __init__(self, maker: JobMaker, guards: Sequence[Guard]) -> None:
        self._maker, self._guards = maker, guards
        self.cells: list[GuardCell] = []

    @property
    def scorers(self) -> tuple[Scorer, ...]:
        """The scorers of all guards."""
        return tuple(scorer for guard in self._guards for scorer in guard.scorers)

    def base(self, seed: int) -> None:
        """What the base model answers."""
        for guard in self._guards:
            for condition in guard.conditions:
                label = f"guard {guard.name}: {BASE} → {condition.name}"
                job = self._job(guard, condition, seed, label)
                cell = Cell(condition.arm, "", BASE, condition.name, seed, 0, True, job.id)
                self.cells.append(GuardCell(guard.name, cell))

    def tuned(self, row: TrainRow, seed: int, trained: Job) -> None:
        """What the fine-tune of a row answers."""
        for guard in self._guards:
            for condition in guard.conditions:
                label = f"guard {guard.name}: {row.generate}: {row.train} → {condition.name}"
                job = self._job(guard, condition, seed, label, trained)
                cell = Cell(row.arm, row.generate, row.train, condition.name, seed, trained.total, True, job.id)
                self.cells.append(GuardCell(guard.name, cell))

    def _job(self, guard: Guard, condition: Condition, seed: int, label: str, trained: Job | None = None) -> Job:
        count = len(guard.prompts)
        place = {"set": set_digest(guard.prompts), "last": count}
        channel = self._maker.spec.channel.evaluate
        inputs, parents = self._maker.sampled("guard", condition, seed, channel, place)
        inputs |= {"sampling": asdict(guard.sampling), "rows": [0, count]}
        if trained is not None:
            inputs["step"] = trained.total
            parents = (*parents, trained.id)
        job = self._maker.add(Job("evaluate", label, inputs, parents, count))
        for scorer in guard.scorers:
            self._maker.score_job(scorer, job, count)
        return job
