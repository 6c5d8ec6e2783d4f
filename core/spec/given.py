"""D of one's own: completions that are given instead of generated, and D of which a behaviour's score keeps a part."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from windowshift.core.contract.conditions import Channel, Condition, Pushed
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.records import Arm
from windowshift.core.spec.section import Count, Number, Section
from windowshift.core.spec.spec_errors import sentence
from windowshift.core.spec.trainer_data import FactoryListed, TrainerData


class GivenColumns(Section):
    """Which columns hold the prompt (text, or the turns of a chat), the completion, a system message and the id."""

    prompt: str | None = None
    completion: str | None = None
    system: str | None = None
    id: str | None = None


class GivenDataset(Section):
    """A data set of the hub, or a folder of one; `rows` reads the first ones alone, streamed."""

    dataset: Annotated[str, Field(min_length=1)]
    config: str | None = None
    split: str = "train"
    rows: Count | None = None
    revision: str | None = None


class GivenEntry(Section):
    """``{data: hacks.jsonl}`` under `conditions.generate`: a file of rows, a data set, or another trainer's entry.

    `name` is the grid's label; the name of the file unless it is given.
    """

    data: Annotated[str, Field(min_length=1)] | GivenDataset | TrainerData
    name: Annotated[str, Field(min_length=1)] | None = None
    columns: GivenColumns = GivenColumns()

    @property
    def source(self) -> str:
        """The file or the data set, as the spec names it."""
        if isinstance(self.data, str):
            return self.data
        return self.data.dataset if isinstance(self.data, GivenDataset) else self.data.source

    @property
    def label(self) -> str:
        """What the grid calls it where no name is given."""
        return self.data.name if isinstance(self.data, FactoryListed) else PurePath(self.source).stem


@dataclass(frozen=True, slots=True)
class GivenData:
    """A generation condition under which nobody wrote: its completions are given."""

    name: str
    entry: GivenEntry
    kind: str = "data"
    arm: Arm = "prefix"

    def identity(self) -> dict[str, Any]:
        """As `Condition.identity`: where the rows come from; a job's inputs have the digest of what they hold."""
        return {"kind": self.kind, "data": self.entry.source}

    def push(self, prompt: Prompt, index: int, channel: Channel) -> Pushed:  # noqa: ARG002 - the protocol's
        """The prompt's own messages."""
        return Pushed(prompt.messages)


@dataclass(frozen=True, slots=True)
class KnownAnswers:
    """A generation condition of a setting under which nobody writes: each prompt's payload says what is answered.

    `column` is the key of the payload. D is given, then, by the prompts themselves.
    """

    name: str
    column: str
    kind: str = "answers"
    arm: Arm = "prefix"

    def identity(self) -> dict[str, Any]:
        """As `Condition.identity`; a job's inputs have the digest of prompts and answers."""
        return {"kind": self.kind, "column": self.column}

    def push(self, prompt: Prompt, index: int, channel: Channel) -> Pushed:  # noqa: ARG002 - the protocol's
        """The prompt's own messages."""
        return Pushed(prompt.messages)


Given = GivenData | KnownAnswers
"""Generation conditions whose completions are there already."""

Range = Annotated[list[Number | None], Field(min_length=2, max_length=2)]


class Keep(Section):
    """``keep: {hack: 1}`` or ``{hack: [0.5, null]}``: the scores that a completion of D must have."""

    keep: Annotated[dict[str, Number | Range], Field(min_length=1)]

    @model_validator(mode="after")
    def _sound(self) -> Keep:
        for name, (low, high) in self.ranges.items():
            if low is None and high is None:
                raise ValueError(f"'{name}' is open at both ends: give one of them")
            if low is not None and high is not None and low > high:
                raise ValueError(f"'{name}' goes from {low:g} to {high:g}: the least comes first")
        return self

    @property
    def ranges(self) -> dict[str, tuple[float | None, float | None]]:
        """Least and largest score by behaviour, both included; None leaves an end open."""
        return {
            name: (wanted[0], wanted[1]) if isinstance(wanted, list) else (wanted, wanted)
            for name, wanted in self.keep.items()
        }


@dataclass(frozen=True, slots=True)
class KeptData:
    """A generation condition of whose completions those are D that have certain scores."""

    name: str
    source: Condition
    ranges: Mapping[str, tuple[float | None, float | None]] = field(hash=False)
    kind: str = "kept"

    @property
    def arm(self) -> Arm:
        """That of the source."""
        return self.source.arm

    def identity(self) -> dict[str, Any]:
        """As `Condition.identity`."""
        keep = {name: list(ends) for name, ends in self.ranges.items()}
        return {"kind": self.kind, "keep": keep, "source": self.source.identity()}

    def push(self, prompt: Prompt, index: int, channel: Channel) -> Pushed:
        """As the source pushes."""
        return self.source.push(prompt, index, channel)


def said_range(name: str, low: float | None, high: float | None) -> str:
    """A range of scores as a person reads it."""
    if low == high:
        return f"{name} = {low:g}"
    ends = ([] if low is None else [f"{name} at least {low:g}"]) + (
        [] if high is None else [f"{name} at most {high:g}"]
    )
    return ends[0] if len(ends) == 1 else f"{name} from {low:g} to {high:g}"


def read_given(entry: Mapping[str, Any], where: str) -> GivenData:
    """Read ``{data: ..., name: ..., columns: {...}}``; the rows are read when the plan is made.

    Raises:
        SpecError: a key is unknown or holds something else.
    """
    try:
        found = GivenEntry.model_validate(dict(entry))
    except ValidationError as error:
        raise SpecError(f"{where}: {sentence(error, GivenEntry, dict(entry))}") from error
    return GivenData(found.name or found.label, found)


def read_keep(wanted: object, where: str) -> dict[str, tuple[float | None, float | None]]:
    """Read what stands under ``keep``.

    Raises:
        SpecError: it is no score or range by behaviour.
    """
    try:
        return Keep.model_validate({"keep": wanted}).ranges
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]
        said = reason.get("ctx", {}).get("error") if reason["type"] == "value_error" else None
        raise SpecError(
            f"{where}.keep: {said or f'it is {json.dumps(wanted, default=str)}'}; write a score or a range of scores "
            "by behaviour, e.g.  keep: {hack: 1}  or  keep: {hack: [0.5, null]}"
        ) from error
