"""The grid of a spec: its condition entries, resolved to conditions and mixes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from windowshift.core.contract.conditions import NO_PREFIX, Condition, PrefixGroup, check_phrases
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.records import BASE
from windowshift.core.spec.condition_kinds import KINDS
from windowshift.core.spec.sections import ConditionEntry, Mix
from windowshift.core.spec.spec import Spec
from windowshift.core.spec.spec_errors import did_you_mean, sentence


@dataclass(frozen=True, slots=True)
class TrainPart:
    """A part of D: its share, and the conditions it was written and is trained under."""

    fraction: float
    generate: Condition
    train: Condition


@dataclass(frozen=True, slots=True)
class TrainRow:
    """A row of the grid: one part for a plain train condition, several for a mix."""

    generate: str
    train: str
    arm: str
    parts: tuple[TrainPart, ...]


@dataclass(frozen=True, slots=True)
class GridSpec:
    """Everything that the spec's `conditions` name.

    `base` are conditions for the base model alone. `names` are all conditions that have a name of their
    own, those of the setting included.
    """

    generate: tuple[Condition, ...]
    rows: tuple[TrainRow, ...]
    evaluate: tuple[Condition, ...]
    base: tuple[Condition, ...]
    names: Mapping[str, Condition]


def resolve_grid(spec: Spec, known: Mapping[str, Condition]) -> GridSpec:
    """Resolve a spec's conditions against the setting's and its own groups.

    Raises:
        SpecError: the entry that names nothing, or a name that stands there twice.
    """
    own: dict[str, Condition] = {}
    for name, phrases in spec.conditions.groups.items():
        if name in (BASE, NO_PREFIX):
            raise SpecError(f"conditions.groups: '{name}' is a reserved name; choose another")
        own[name] = PrefixGroup(name, check_phrases(phrases, f"conditions.groups.{name}"))
    names = {**known, **own}
    generate = _conditions(spec.conditions.generate, names, "conditions.generate")
    evaluate = _conditions(spec.conditions.evaluate, names, "conditions.evaluate")
    base = _conditions(spec.conditions.base, names, "conditions.base")
    _once([condition.name for condition in (*evaluate, *base)], "conditions.base")
    for name in spec.conditions.cross if isinstance(spec.conditions.cross, list) else ():
        named(name, {condition.name: condition for condition in evaluate}, "conditions.cross")
    # A name given inline in one list can be used in a mix.
    names.update({condition.name: condition for condition in (*generate, *evaluate)})
    rows: list[TrainRow] = []
    for index, entry in enumerate(spec.conditions.train):
        where = f"conditions.train[{index}]"
        if isinstance(entry, dict) and "mix" in entry:
            rows.append(_mix_row(entry, names, where))
            continue
        rows.extend(
            TrainRow(source.name, condition.name, condition.arm, (TrainPart(1.0, source, condition),))
            for condition in _resolve(entry, names, where)
            for source in generate
        )
    _once([(row.generate, row.train) for row in rows], "conditions.train")
    if len(spec.conditions.train) and any(row.train == BASE for row in rows):
        raise SpecError(f"conditions.train: '{BASE}' is the untrained model, which is evaluated anyway; leave it out")
    return GridSpec(generate, tuple(rows), evaluate, base, names)


def _conditions(entries: Sequence[ConditionEntry], names: Mapping[str, Condition], where: str) -> tuple[Condition, ...]:
    found = [
        condition for index, entry in enumerate(entries) for condition in _resolve(entry, names, f"{where}[{index}]")
    ]
    _once([condition.name for condition in found], where)
    return tuple(found)


def _resolve(entry: ConditionEntry, names: Mapping[str, Condition], where: str) -> list[Condition]:
    if isinstance(entry, str):
        return [named(entry, names, where)]
    for key, reader in KINDS.items():
        if key in entry:
            unknown = set(map(str, entry)) - {key, "name"}
            if unknown and key == "phrases":
                raise SpecError(f"{where}: unknown key '{min(unknown)}'{did_you_mean(min(unknown), [key, 'name'])}")
            return reader(entry, where)
    keys = ", ".join(map(str, entry)) or "nothing"
    raise SpecError(
        f"{where}: a condition is a name or has one of the keys {', '.join([*KINDS, 'mix'])}, but this one has {keys}"
    )


def named(name: str, names: Mapping[str, Condition], where: str) -> Condition:
    """Look a condition up by name.

    Raises:
        SpecError: nothing has that name.
    """
    if name not in names:
        raise SpecError(f"{where}: there is no condition '{name}'{did_you_mean(name, names)}")
    return names[name]


def _mix_row(entry: Mapping[str, Any], names: Mapping[str, Condition], where: str) -> TrainRow:
    try:
        mix = Mix.model_validate(entry)
    except ValidationError as error:
        raise SpecError(f"{where}: {sentence(error, Mix, dict(entry))}") from error
    parts = tuple(
        TrainPart(
            part.fraction,
            named(part.generate, names, f"{where}.mix[{index}].generate"),
            named(part.train, names, f"{where}.mix[{index}].train"),
        )
        for index, part in enumerate(mix.mix)
    )
    arms = {part.train.arm for part in parts}
    if len(arms) > 1:
        raise SpecError(f"{where}: the parts of mix '{mix.name}' belong to different arms; a mix stays in one")
    label = "+".join(dict.fromkeys(part.generate.name for part in parts))
    return TrainRow(label, mix.name, arms.pop(), parts)


def _once(items: Sequence[object], where: str) -> None:
    seen: set[object] = set()
    for item in items:
        if item in seen:
            name = item if isinstance(item, str) else " / ".join(map(str, item)) if isinstance(item, tuple) else item
            raise SpecError(f"{where}: '{name}' stands there twice; every condition may stand there once")
        seen.add(item)
