"""The grid of a spec: its condition entries, resolved to conditions and mixes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from windowshift.core.contract.conditions import NO_PREFIX, Condition, PrefixGroup, check_phrases, is_neutral
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.records import BASE
from windowshift.core.contract.selective import Selective
from windowshift.core.spec.condition_kinds import KINDS
from windowshift.core.spec.control_entry import read_control
from windowshift.core.spec.given import GivenData, KeptData, KnownAnswers, read_given, read_keep
from windowshift.core.spec.made_groups import read_shots, read_suggestive, read_union
from windowshift.core.spec.sections import ConditionEntry, Mix, Stages, Where
from windowshift.core.spec.spec import Spec
from windowshift.core.spec.spec_errors import did_you_mean, sentence

MADE = ("control", "shots", "contexts", "union")
"""Keys of conditions that are made of other conditions or of files."""


@dataclass(frozen=True, slots=True)
class TrainPart:
    """A part of D: its share, and the conditions it was written and is trained under."""

    fraction: float
    generate: Condition
    train: Condition


@dataclass(frozen=True, slots=True)
class TrainRow:
    """A row of the grid: one part for a plain train condition, several for a mix.

    One that is trained in stages is its last stage, and `after` the one before, which has an earlier one itself.
    """

    generate: str
    train: str
    arm: str
    parts: tuple[TrainPart, ...]
    after: TrainRow | None = None

    @property
    def stages(self) -> tuple[TrainRow, ...]:
        """What is trained, one after the other; the row itself comes last."""
        return (*(self.after.stages if self.after else ()), self)


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

    @property
    def parts(self) -> tuple[TrainPart, ...]:
        """Every part of every D, of earlier stages too."""
        return tuple(part for row in self.rows for stage in row.stages for part in stage.parts)


def resolve_grid(spec: Spec, known: Mapping[str, Condition], folder: Path = Path()) -> GridSpec:
    """Resolve a spec's conditions against the setting's and its own groups.

    `folder` is where the files that conditions name are looked for.

    Raises:
        SpecError: the entry that names nothing, or a name that stands there twice.
    """
    own: dict[str, Condition] = {}
    for name, phrases in spec.conditions.groups.items():
        if name in (BASE, NO_PREFIX):
            raise SpecError(f"conditions.groups: '{name}' is a reserved name; choose another")
        own[name] = PrefixGroup(name, check_phrases(phrases, f"conditions.groups.{name}"))
    names = {**known, **own}
    names = {**_given_inline(spec, names, folder), **names}
    generate = _datasets(spec.conditions.generate, names, folder)
    evaluate = _conditions(spec.conditions.evaluate, names, folder, "conditions.evaluate")
    base = _conditions(spec.conditions.base, names, folder, "conditions.base")
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
        if isinstance(entry, dict) and "stages" in entry:
            rows += _staged_rows(entry, names, generate, where)
            continue
        if isinstance(entry, dict) and "where" in entry:
            trained = [_selective(entry, names, folder, spec.data.seed, where)]
        else:
            trained = _resolve(entry, names, folder, where)
        # A name given inline can be used in a mix that comes after it.
        names.update({condition.name: condition for condition in trained})
        rows.extend(
            TrainRow(source.name, condition.name, condition.arm, (TrainPart(1.0, source, condition),))
            for condition in trained
            for source in generate
        )
    _once([(row.generate, row.train) for row in rows], "conditions.train")
    if len(spec.conditions.train) and any(row.train == BASE for row in rows):
        raise SpecError(f"conditions.train: '{BASE}' is the untrained model, which is evaluated anyway; leave it out")
    return GridSpec(generate, tuple(rows), evaluate, base, names)


def _given_inline(spec: Spec, names: Mapping[str, Condition], folder: Path) -> dict[str, Condition]:
    """The conditions that are written inline in some list, so that every list can call them by name.

    What cannot be read is left to whoever reads that list.
    """
    found: dict[str, Condition] = {}
    lists = {"evaluate": spec.conditions.evaluate, "base": spec.conditions.base, "train": spec.conditions.train}
    for _ in range(2):  # a control may be made of a condition that stands in a later list
        for part, entries in lists.items():
            for index, entry in enumerate(entries):
                if isinstance(entry, dict) and "where" not in entry and {*KINDS, *MADE} & set(entry):
                    with suppress(SpecError):
                        read = _resolve(entry, {**found, **names}, folder, f"conditions.{part}[{index}]")
                        for condition in read:
                            found.setdefault(condition.name, condition)
    return found


def _conditions(
    entries: Sequence[ConditionEntry], names: Mapping[str, Condition], folder: Path, where: str
) -> tuple[Condition, ...]:
    found: list[Condition] = []
    for index, entry in enumerate(entries):
        # A name given inline can be used in an entry that comes after it.
        before = {**names, **{condition.name: condition for condition in found}}
        found += _resolve(entry, before, folder, f"{where}[{index}]")
    _once([condition.name for condition in found], where)
    return tuple(found)


def _datasets(entries: Sequence[ConditionEntry], names: Mapping[str, Condition], folder: Path) -> tuple[Condition, ...]:
    """The generation conditions: those under which D is written, given ones, and those of which a part is kept."""
    found: list[Condition] = []
    for index, entry in enumerate(entries):
        where = f"conditions.generate[{index}]"
        keep = entry.get("keep") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not {"data", "keep", "generate"} & set(entry):
            several = not isinstance(entry, str)  # an inline entry may make more than one
            found += _resolve(entry, names, folder, where) if several else [_source(entry, names, folder, where)]
            continue
        rest = {key: value for key, value in entry.items() if key != "keep"}
        if "generate" in rest:
            unknown = set(map(str, rest)) - {"generate", "name"}
            if unknown:
                raise SpecError(
                    f"{where}: unknown key '{min(unknown)}'{did_you_mean(min(unknown), ['generate', 'keep', 'name'])}"
                )
            if keep is None:
                raise SpecError(f"{where}: 'generate' names a condition of which a part is kept: add  keep: {{...}}")
            source = _source(
                rest["generate"], {**names, **{one.name: one for one in found}}, folder, f"{where}.generate"
            )
            if isinstance(source, KeptData):
                raise SpecError(f"{where}.generate: '{source.name}' is kept of another one already: name that one")
        elif "data" in rest:
            # What is kept has the name; all of it is called by its file.
            source = read_given(rest if keep is None else {**rest, "name": None}, where)
        else:
            source = _single(rest, names, folder, where)
        if keep is None:
            found.append(source)
            continue
        name = rest.get("name") or f"{source.name}, kept"
        if not isinstance(name, str):
            raise SpecError(f"{where}.name must be text, but it is {name!r}")
        found.append(KeptData(name, source, read_keep(keep, where)))
    for one in found:
        if isinstance(one, GivenData | KeptData) and one.name in names:
            raise SpecError(f"conditions.generate: '{one.name}' is the name of a condition: add another  name: ...")
    _once([condition.name for condition in found], "conditions.generate")
    return tuple(found)


def _source(entry: ConditionEntry, names: Mapping[str, Condition], folder: Path, where: str) -> Condition:
    """What writes D, by name or inline: a condition, or answers that are known."""
    if isinstance(entry, str) and isinstance(known := named(entry, names, where), KnownAnswers):
        return known
    return _single(entry, names, folder, where)


def _single(entry: ConditionEntry, names: Mapping[str, Condition], folder: Path, where: str) -> Condition:
    """One condition, by name or inline."""
    if not isinstance(entry, str | dict):
        raise SpecError(f"{where}: a condition is a name or a mapping, but this one is {entry!r}")
    found = _resolve(entry, names, folder, where)
    if len(found) != 1:
        raise SpecError(f"{where}: one condition is wanted, but these are {len(found)}")
    return found[0]


def _selective(
    entry: Mapping[str, Any], names: Mapping[str, Condition], folder: Path, seed: int, where: str
) -> Condition:
    """Read ``{train: hack, where: {label: hack}, else: no_prefix, noise: 0.1, name: ...}``."""
    try:
        read = Where.model_validate({key: value for key, value in entry.items() if key not in KINDS})
    except ValidationError as error:
        raise SpecError(f"{where}: {sentence(error, Where, dict(entry))}") from error
    inline = {key: value for key, value in entry.items() if key in (*KINDS, "name")}
    if (read.train is None) == (len(inline) <= ("name" in inline)):
        raise SpecError(f"{where}: 'where' needs the condition of the rows that match: add  train: NAME")
    then = _trainable(_single(inline if read.train is None else read.train, names, folder, where), where)
    otherwise = _trainable(_single(read.otherwise, names, folder, f"{where}.else"), f"{where}.else")
    if then.arm != otherwise.arm and not is_neutral(otherwise):
        raise SpecError(f"{where}: '{then.name}' and '{otherwise.name}' belong to different arms; a row stays in one")
    words = ", ".join(f"{key}={value}" for key, value in read.where.items())
    name = read.name or f"{then.name} where {words}"
    return Selective(name, read.where, then, otherwise, read.noise, seed if read.noise else 0)


def _trainable(condition: Condition, where: str) -> Condition:
    if isinstance(condition, GivenData | KeptData | KnownAnswers):
        raise SpecError(f"{where}: '{condition.name}' is a set of data, which stands under conditions.generate")
    return condition


def _resolve(entry: ConditionEntry, names: Mapping[str, Condition], folder: Path, where: str) -> list[Condition]:
    if isinstance(entry, str):
        return [_trainable(named(entry, names, where), where)]
    for key in ("data", "keep", "where"):
        if key in entry:
            place = "conditions.train" if key == "where" else "conditions.generate"
            raise SpecError(f"{where}: '{key}' stands under {place} only")
    if "control" in entry and "steer" not in entry:
        return read_control(entry, names, folder, where)
    if "shots" in entry:
        return read_shots(entry, folder, where)
    if "contexts" in entry:
        return read_suggestive(entry, folder, where)
    if "union" in entry:
        return read_union(entry, names, where)
    for key, reader in KINDS.items():
        if key in entry:
            unknown = set(map(str, entry)) - {key, "name"}
            if unknown and key != "steer":  # which has keys of its own, and looks at them
                raise SpecError(f"{where}: unknown key '{min(unknown)}'{did_you_mean(min(unknown), [key, 'name'])}")
            return reader(entry, where)
    known, keys = ", ".join([*KINDS, *MADE, "mix", "stages"]), ", ".join(map(str, entry)) or "nothing"
    raise SpecError(f"{where}: a condition is a name or has one of the keys {known}, but this one has {keys}")


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
            _trainable(named(part.train, names, f"{where}.mix[{index}].train"), f"{where}.mix[{index}].train"),
        )
        for index, part in enumerate(mix.mix)
    )
    arms = {part.train.arm for part in parts}
    if len(arms) > 1:
        raise SpecError(f"{where}: the parts of mix '{mix.name}' belong to different arms; a mix stays in one")
    label = "+".join(dict.fromkeys(part.generate.name for part in parts))
    return TrainRow(label, mix.name, arms.pop(), parts)


def _staged_rows(
    entry: Mapping[str, Any], names: Mapping[str, Condition], generate: Sequence[Condition], where: str
) -> Iterator[TrainRow]:
    """Read ``{name: sealed, stages: [{train: asked}, {train: no_prefix, generate: clean}]}``.

    One row for every generation condition of the grid; one alone where every stage names its own.
    """
    try:
        read = Stages.model_validate(entry)
    except ValidationError as error:
        raise SpecError(f"{where}: {sentence(error, Stages, dict(entry))}") from error
    trained = [
        _trainable(named(stage.train, names, f"{where}.stages[{n}].train"), f"{where}.stages[{n}].train")
        for n, stage in enumerate(read.stages)
    ]
    given = [
        None if stage.generate is None else named(stage.generate, names, f"{where}.stages[{n}].generate")
        for n, stage in enumerate(read.stages)
    ]
    if len({condition.arm for condition in trained if not is_neutral(condition)}) > 1:
        raise SpecError(f"{where}: the stages of '{read.name}' belong to different arms; a row stays in one")
    arm = next((condition.arm for condition in trained if not is_neutral(condition)), trained[0].arm)
    for source in generate if None in given else generate[:1]:
        row: TrainRow | None = None
        first = given[0] or source
        for condition, own in zip(trained, given, strict=True):
            data = own or source
            label = data.name if row is None else first.name
            row = TrainRow(label, condition.name, arm, (TrainPart(1.0, data, condition),), row)
        assert row is not None  # there are two stages or more
        yield replace(row, train=read.name)


def _once(items: Sequence[object], where: str) -> None:
    seen: set[object] = set()
    for item in items:
        if item in seen:
            name = item if isinstance(item, str) else " / ".join(map(str, item)) if isinstance(item, tuple) else item
            raise SpecError(f"{where}: '{name}' stands there twice; every condition may stand there once")
        seen.add(item)
