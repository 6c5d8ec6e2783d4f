"""The plan: a spec as a graph of content-hashed jobs, with the grid that they fill."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from windowshift.core import registry
from windowshift.core.backend import Backend, ModelIdentity
from windowshift.core.errors import BackendError, SpecError
from windowshift.core.grid_spec import GridSpec, resolve_grid
from windowshift.core.jobs import Cell, Job, Source
from windowshift.core.judge import judges_of
from windowshift.core.plan_maker import PlanMaker
from windowshift.core.prompt_source import draw
from windowshift.core.prompts import Prompt, set_digest
from windowshift.core.setting import Scorer, Setting
from windowshift.core.spec import Spec
from windowshift.core.spec_errors import did_you_mean


@dataclass(frozen=True)
class Plan:
    """Jobs in an order in which every parent comes before its children, and the grid over them.

    `prompts` holds the prompt sets that the jobs' inputs name by digest; `repeats` counts prompts left
    out because another one has the same text.
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

    def counts(self) -> dict[str, int]:
        """Jobs by kind."""
        counts: dict[str, int] = {}
        for job in self.jobs:
            counts[job.kind] = counts.get(job.kind, 0) + 1
        return counts


def make_plan(spec: Spec, spec_text: str, folder: Path, backends: Mapping[str, Backend]) -> Plan:
    """Plan a spec.

    Args:
        spec: the experiment.
        spec_text: its YAML, kept in the store.
        folder: where relative prompt files and model folders are looked for first.
        backends: the backends that the spec names, by name.

    Raises:
        SpecError: a condition, prompt source, model or capability that is not there.
    """
    if not Path(spec.model).is_absolute() and (folder / spec.model / "config.json").is_file():
        spec = spec.model_copy(update={"model": str(folder / spec.model)})  # beside the spec, as prompt files are
    setting = registry.setting(spec.setting)
    grid = resolve_grid(spec, setting.conditions())
    _check_capabilities(spec, grid, backends)
    _check_checkpoints(spec, grid)
    try:
        model = backends[spec.generate_backend].identify(spec.model, spec.revision)
        _check_system_channel(spec, backends)
    except BackendError as error:
        raise SpecError(f"model: {error}") from error
    source = spec.prompts if spec.prompts is not None else setting.default_prompts()
    if source is None:
        raise SpecError(f"the setting '{spec.setting}' needs a prompt source: add  prompts: FILE")
    share = spec.data.filter.candidates if spec.data.filter else 1.0
    wanted = math.ceil(spec.data.size * share), math.ceil(spec.sampling.prompts * share)
    drawn = draw(source, *wanted, spec.data.seed, folder)
    taken = [behaviour.name for scorer in setting.scorers for behaviour in scorer.behaviours]
    scorers = (*setting.scorers, *judges_of(spec, folder, backends, taken))
    maker = PlanMaker(spec, scorers, grid, model, drawn)
    able, size = backends[spec.train_backend].capabilities, spec.data.size
    maker.keeps = lambda step: able.checkpoints or (able.epoch_checkpoints and step % size == 0)
    maker.make()
    return Plan(
        spec,
        spec_text,
        setting,
        scorers,
        model,
        grid,
        {set_digest(drawn.data): drawn.data, set_digest(drawn.evaluation): drawn.evaluation},
        drawn.repeats,
        tuple(maker.jobs.values()),
        tuple(maker.cells),
        tuple(maker.sources),
    )


def _check_capabilities(spec: Spec, grid: GridSpec, backends: Mapping[str, Backend]) -> None:
    trainer, sampler = backends[spec.train_backend].capabilities, backends[spec.generate_backend].capabilities
    if not trainer.trains:
        raise SpecError(f"backend '{spec.train_backend}' cannot train: write  backend: {{train: local, generate: ...}}")
    if not sampler.generates:
        raise SpecError(f"backend '{spec.generate_backend}' cannot generate: name another one under backend.generate")
    conditions = [*grid.generate, *grid.evaluate, *(part.train for row in grid.rows for part in row.parts)]
    for condition in conditions:
        if condition.arm == "steering" and not (trainer.steers and sampler.steers):
            raise SpecError(
                f"condition '{condition.name}' is a steering dose, which backend '{spec.generate_backend}' cannot do: "
                "name one that steers, e.g. local"
            )
    if spec.checkpoints and not trainer.checkpoints:
        size = spec.data.size
        for step in spec.checkpoints.steps(size * spec.sft.epochs):
            if step > size and not (trainer.epoch_checkpoints and step % size == 0):
                raise SpecError(
                    f"checkpoints: backend '{spec.train_backend}' cannot stop after {step} examples, within a later "
                    f"epoch: name numbers up to data.size ({size}), or multiples of it"
                )


def _check_system_channel(spec: Spec, backends: Mapping[str, Backend]) -> None:
    if "system" not in (spec.channel.train, spec.channel.evaluate, spec.channel.generate):
        return
    for name in sorted({spec.train_backend, spec.generate_backend}):
        if not backends[name].supports_system(spec.model, spec.revision):
            raise SpecError(
                f"the chat template of '{spec.model}' refuses or drops system messages: "
                "set channel: {train: user, evaluate: user}"
            )


def _check_checkpoints(spec: Spec, grid: GridSpec) -> None:
    if spec.checkpoints is None:
        return
    total = spec.data.size * spec.sft.epochs
    if spec.checkpoints.every is not None and spec.checkpoints.every >= total:
        raise SpecError(
            f"checkpoints.every is {spec.checkpoints.every}, but training ends after {total} examples: lower it"
        )
    if spec.checkpoints.at is not None and max(spec.checkpoints.at) > total:
        raise SpecError(
            f"checkpoints.at has {max(spec.checkpoints.at)}, but training ends after {total} examples: lower it, or "
            "raise data.size"
        )
    known = [condition.name for condition in grid.evaluate]
    for name in spec.checkpoints.evaluate or ():
        if name not in known:
            raise SpecError(
                f"checkpoints.evaluate: '{name}' is not among conditions.evaluate{did_you_mean(name, known)}"
            )
