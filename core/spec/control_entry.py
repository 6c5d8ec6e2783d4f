"""Controls in a spec: ``{control: irrelevant, of: hack}`` beside the condition that it is a control of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from windowshift.core.contract import rewording
from windowshift.core.contract.conditions import Condition, PrefixGroup, check_phrases
from windowshift.core.contract.controls import STANDARD, TEXT_CONTROLS, ControlGroup, EmptySystem, TextControl
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.home import at_home
from windowshift.core.spec.phrase_file import read_phrase_file
from windowshift.core.spec.section import Count, Section
from windowshift.core.spec.spec_errors import did_you_mean, sentence

REPHRASINGS = 250
"""Rephrasings that are made by rule unless the spec says another number: enough for the 500 examples of the default."""


class ControlEntry(Section):
    """One or more controls of a prefix condition; each makes a condition called ``OF~CONTROL``.

    `count` is the number of irrelevant sentences or of rephrasings, `file` has rephrasings (a line each, or JSONL with
    `text`), `set` is the number of a set of neutral phrases, `take` the condition of another trait, and `phrases`
    stand in place of what the rules would make.
    """

    control: Annotated[list[TextControl | Literal["all"]], Field(min_length=1)]
    of: Annotated[str, Field(min_length=1)]
    take: Annotated[str, Field(min_length=1)] | None = None
    phrases: list[str] | None = None
    file: Annotated[str, Field(min_length=1)] | None = None
    count: Count | None = None
    set: Annotated[int, Field(ge=1)] | None = None
    name: Annotated[str, Field(min_length=1)] | None = None

    @field_validator("control", mode="before")
    @classmethod
    def _one_alone(cls, value: object) -> object:
        if isinstance(value, str) and value not in (*TEXT_CONTROLS, "all"):
            raise ValueError(
                f"there is no control '{value}'{did_you_mean(value, TEXT_CONTROLS)} "
                f"(there are all, {', '.join(TEXT_CONTROLS)}; those of a vector stand beside  steer:)"
            )
        return [value] if isinstance(value, str) else value

    @property
    def kinds(self) -> tuple[TextControl, ...]:
        """The controls, each once."""
        return tuple(dict.fromkeys(kind for one in self.control for kind in (STANDARD if one == "all" else (one,))))

    @model_validator(mode="after")
    def _fitting(self) -> ControlEntry:
        for key, kinds in (
            ("take", ("other_trait",)),
            ("file", ("rephrased",)),
            ("count", ("irrelevant", "rephrased")),
            ("set", ("neutral",)),
        ):
            if getattr(self, key) is not None and not set(kinds) & set(self.kinds):
                raise ValueError(f"'{key}' goes with  control: {' or '.join(kinds)}")
        if "other_trait" in self.kinds and self.take is None:
            raise ValueError("control: other_trait  needs the other trait's condition: add  take: NAME")
        if len(self.kinds) > 1 and (self.phrases is not None or self.name is not None):
            key = "phrases" if self.phrases is not None else "name"
            raise ValueError(f"'{key}' goes with one control, and these are {len(self.kinds)}: write an entry for each")
        if self.phrases is not None and self.file is not None:
            raise ValueError("give phrases or a file of them, not both")
        if self.phrases is not None and "empty_system" in self.kinds:
            raise ValueError("an empty system message has no phrases: leave them out")
        return self


def read_control(entry: Mapping[str, Any], names: Mapping[str, Condition], folder: Path, where: str) -> list[Condition]:
    """Read ``{control: [irrelevant, negated], of: hack}``, one condition a control.

    Args:
        entry: what stands in the spec.
        names: the conditions that have a name so far.
        folder: where a relative file of rephrasings is looked for.
        where: the place in the spec.

    Raises:
        SpecError: a key or value that cannot be, a condition that is no prefix group, or a rule that makes nothing.
    """
    try:
        read = ControlEntry.model_validate(dict(entry))
    except ValidationError as error:
        raise SpecError(f"{where}: {sentence(error, ControlEntry, dict(entry))}") from error
    group = _group(read.of, names, f"{where}.of")
    found: list[Condition] = []
    for kind in read.kinds:
        name = read.name or f"{read.of}~{kind}" + (f"{read.set}" if kind == "neutral" and (read.set or 1) > 1 else "")
        if kind == "empty_system":
            found.append(EmptySystem(name, read.of))
            continue
        try:
            phrases = _phrases(kind, read, group, names, folder, where)
        except SpecError as error:
            raise SpecError(f"{where}: {str(error).removeprefix(f'{where}: ')}") from error
        far = tuple(rewording.distance(phrase, group.phrases) for phrase in phrases) if kind == "rephrased" else ()
        found.append(ControlGroup(name, phrases, **group.place, control=kind, of=read.of, distances=far))
    return found


def _phrases(
    kind: TextControl,
    read: ControlEntry,
    group: PrefixGroup,
    names: Mapping[str, Condition],
    folder: Path,
    where: str,
) -> tuple[str, ...]:
    if read.phrases is not None:
        return check_phrases(read.phrases, where)
    match kind:
        case "irrelevant":
            return rewording.irrelevant(group, read.count)
        case "rephrased" if read.file is not None:
            return _read_rephrasings(folder / at_home(read.file), read.count)
        case "rephrased":
            return rewording.rephrased_by_rule(group, read.count or REPHRASINGS)
        case "negated":
            return rewording.negated(group)
        case "keyword":
            return rewording.keywords(group)
        case "other_trait":
            return _group(read.take or "", names, f"{where}.take").phrases
        case "delimiters":
            return rewording.delimiters(group)
        case _:
            return rewording.neutral(group, read.set or 1)


def _group(name: str, names: Mapping[str, Condition], where: str) -> PrefixGroup:
    if name not in names:
        raise SpecError(f"{where}: there is no condition '{name}'{did_you_mean(name, names)}")
    found = names[name]
    if not isinstance(found, PrefixGroup):
        raise SpecError(
            f"{where}: '{name}' is of kind {found.kind}, and a control is made of the phrases of a prefix group; for a "
            "vector write  {steer: NAME, control: random, ...}"
        )
    return found


def _read_rephrasings(path: Path, count: int | None) -> tuple[str, ...]:
    found = read_phrase_file(path, "rephrasing")
    if count is not None and count > len(found):
        raise SpecError(f"{path} has {len(found)} different rephrasings, and count asks for {count}")
    return found[:count]
