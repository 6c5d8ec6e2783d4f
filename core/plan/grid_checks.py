"""What a grid must keep to beyond the keys of its spec: refused in one sentence before anything is planned."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from windowshift.core.contract.backend import Backend
from windowshift.core.contract.conditions import Channel, Condition, PrefixGroup, prefixed
from windowshift.core.contract.controls import ControlGroup, EmptySystem, enough_rephrasings
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.phrases import fixed_parts
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.selective import Selective
from windowshift.core.plan.capabilities import check_system
from windowshift.core.plan.guards import Guard
from windowshift.core.settings.given_rows import GivenRows
from windowshift.core.spec.given import Given, KeptData
from windowshift.core.spec.grid_spec import GridSpec
from windowshift.core.spec.spec import Spec
from windowshift.core.spec.spec_errors import did_you_mean

Met = tuple[Condition, Channel, Sequence[Prompt]]
"""A condition, the channel of its prefix, and the prompts that are sampled under it, in their order."""


def check_checkpoints(spec: Spec, grid: GridSpec) -> None:
    """Checkpoints lie within the training, and are evaluated under conditions that there are."""
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


def check_given_checkpoints(spec: Spec, given: Mapping[Given, GivenRows], backends: Mapping[str, Backend]) -> None:
    """A given D may be smaller than `data.size`, which the other checks go by."""
    able, checkpoints = backends[spec.train_backend].capabilities, spec.checkpoints
    for rows in given.values() if checkpoints else ():
        count, size, place = len(rows.prompts), spec.data.size, rows.place
        last = max(checkpoints.at or [checkpoints.every or 0]) if checkpoints else 0
        if count < size and (last > count * spec.sft.epochs or (last > count and not able.checkpoints)):
            raise SpecError(f"checkpoints: {last} examples are more than the {count} rows of {place} have: lower it")


def check_groups(spec: Spec, measured: Sequence[Behaviour]) -> None:
    """Outcomes exclude each other, so that one alone is none, and a name that is misspelt makes such a one."""
    groups = [behaviour.group for behaviour in measured]
    for place, section in enumerate(spec.scorers):
        if section.group is not None and groups.count(section.group) < 2:
            others = {group for group in groups if group and group != section.group}
            raise SpecError(
                f"scorers[{place}]: nothing else is in the group '{section.group}'"
                f"{did_you_mean(section.group, others) if others else ''}; a group is of two outcomes or more"
            )


def check_kept(spec: Spec, grid: GridSpec, behaviours: Collection[str]) -> None:
    """What D is kept by is measured, and checkpoints know how much of it there is."""
    for condition in grid.generate:
        if not isinstance(condition, KeptData):
            continue
        for name in condition.ranges:
            if name not in behaviours:
                raise SpecError(
                    f"conditions.generate: '{condition.name}' keeps by '{name}', which nothing measures"
                    f"{did_you_mean(name, behaviours)}"
                )
        if spec.checkpoints is not None:
            raise SpecError(
                f"checkpoints: how many examples '{condition.name}' keeps is not known before the run: leave "
                "checkpoints out, or keep"
            )


def check_phrases(met: Sequence[Met]) -> None:
    """What phrases take from prompts must be there, in all prompts that they meet."""
    for condition, channel, prompts in met:
        for one in pushing(condition):
            for phrase in one.phrases if isinstance(one, PrefixGroup) else ():
                for prompt in prompts if fixed_parts(phrase) != [phrase] else ():
                    prefixed(phrase, prompt, channel)


def check_guards(spec: Spec, guards: Sequence[Guard], backends: Mapping[str, Backend]) -> None:
    """What guards ask must be possible under their conditions."""
    for guard in guards:
        if any(turn.role == "system" for prompt in guard.prompts for turn in prompt.turns[:1]):
            check_system(spec, backends, f"give the guard '{guard.name}' prompts without a system message")
        try:
            check_phrases([(one, spec.channel.evaluate, guard.prompts) for one in guard.conditions])
        except SpecError as error:
            raise SpecError(f"guard '{guard.name}': {error}") from error


def check_controls(spec: Spec, grid: GridSpec, backends: Mapping[str, Backend]) -> None:
    """A rephrasing is used twice at most, and an empty system message needs a template that takes one."""
    for part in grid.parts:
        for one in pushing(part.train):
            if isinstance(one, ControlGroup):
                enough_rephrasings(one, round(spec.data.size * part.fraction))
    pushed = [*grid.evaluate, *grid.base, *(part.train for part in grid.parts)]
    if any(isinstance(one, EmptySystem) for condition in pushed for one in pushing(condition)):
        check_system(spec, backends, "leave  control: empty_system  out")


def pushing(condition: Condition) -> tuple[Condition, ...]:
    """What a condition pushes by, where it is made of others."""
    if isinstance(condition, KeptData):
        return pushing(condition.source)
    return (condition.then, condition.otherwise) if isinstance(condition, Selective) else (condition,)
