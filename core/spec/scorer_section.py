"""The `scorers` of a spec: behaviours that a person measures without a setting of their own."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from windowshift.core.spec.section import Section

CharacterClass = Literal["capitals", "letters", "digits", "punctuation", "spaces", "non_ascii"]
Measure = Literal["any", "all", "count", "share"]
ScaleName = Literal["ratio", "difference", "rate"]
RoleName = Literal["primary", "positive", "negative", "guard"]
IntegerBounds = Annotated[list[Annotated[int, Field(ge=0)] | None], Field(min_length=2, max_length=2)]

WAYS = ("regex", "keywords", "characters", "words", "is_json", "within", "python", "inspect")
MEASURES: dict[str, tuple[Measure, ...]] = {
    "regex": ("any", "count", "share"),
    "keywords": ("any", "all", "count"),
    "characters": ("share", "count"),
    "words": ("share", "count", "any"),
}
"""What each way can measure, its default first."""


class AnyOf(Section):
    """A set of characters of a person's own."""

    any_of: Annotated[str, Field(min_length=1)]


class WordFile(Section):
    """A text file of words, one a line."""

    file: str


class Within(Section):
    """Least and largest length in each unit; null leaves an end open."""

    characters: IntegerBounds | None = None
    words: IntegerBounds | None = None
    lines: IntegerBounds | None = None
    tokens: IntegerBounds | None = None

    @model_validator(mode="after")
    def _sound(self) -> Within:
        given = {name: getattr(self, name) for name in type(self).model_fields if getattr(self, name) is not None}
        if not given:
            raise ValueError("give a least and a largest length, e.g.  words: [null, 50]")
        for name, (low, high) in given.items():
            if low is None and high is None:
                raise ValueError(f"'{name}' is open at both ends: give one of them")
            if low is not None and high is not None and low > high:
                raise ValueError(f"'{name}' goes from {low} to {high}: the least comes first")
        return self


class ScorerSection(Section):
    """One behaviour and what measures it: exactly one of `WAYS`.

    `measure` is whether there is any (or all) of what is looked for, how many, or which share; `scale` is how
    cells compare, `role` what the behaviour is in the experiment, `unit` what is written after its numbers. Rates of
    one `group` are outcomes of which a completion has one. `inspect` is a task or a scorer of Inspect, made with
    `args`: `target` names the payload's column of what is right, `key` one of several values; it is named after
    itself unless there is a name.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    regex: Annotated[str, Field(min_length=1)] | None = None
    keywords: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None = None
    characters: CharacterClass | AnyOf | None = None
    words: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | WordFile | None = None
    is_json: bool | Literal["object", "array"] | None = None
    within: Within | None = None
    python: Annotated[str, Field(min_length=1)] | None = None
    inspect: Annotated[str, Field(min_length=1)] | None = None
    args: dict[str, Any] | None = None
    target: Annotated[str, Field(min_length=1)] | None = None
    key: Annotated[str, Field(min_length=1)] | None = None
    measure: Measure | None = None
    ignore_case: bool = True
    timeout: Annotated[float, Field(gt=0, le=3600, strict=False)] | None = None
    scale: ScaleName | None = None
    role: RoleName | None = None
    unit: str | None = None
    group: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")] | None = None

    @model_validator(mode="before")
    @classmethod
    def _named_after_itself(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(place := data.get("inspect"), str) and "name" not in data:
            stem = re.split(r"[/@]", place)[-1].removesuffix(".py").lower()
            return {**data, "name": re.sub(r"[^a-z0-9_]+", "_", stem).strip("_")[:40] or "inspect"}
        return data

    @property
    def way(self) -> str:
        """The key that says what measures it."""
        return next(key for key in WAYS if getattr(self, key) is not None)

    @property
    def measured(self) -> Measure | None:
        """What is measured; None where the way leaves no choice."""
        return self.measure or next(iter(MEASURES.get(self.way, ())), None)

    @model_validator(mode="after")
    def _one_way(self) -> ScorerSection:
        ways = [key for key in WAYS if getattr(self, key) is not None]
        if len(ways) != 1:
            raise ValueError(f"give one of {', '.join(WAYS)}" + (f", not {' and '.join(ways)}" if ways else ""))
        known = MEASURES.get(self.way, ())
        if self.measure is not None and self.measure not in known:
            can = f"'{self.way}' can measure {', '.join(known)}" if known else f"'{self.way}' takes no 'measure'"
            raise ValueError(f"measure is {self.measure}, but {can}")
        if self.is_json is False:
            raise ValueError("is_json is true, object or array; leave the scorer out where it is not wanted")
        if "ignore_case" in self.model_fields_set and self.way not in ("regex", "keywords", "words"):
            raise ValueError(f"'{self.way}' takes no 'ignore_case'")
        for only in ("args", "target", "key"):
            if getattr(self, only) is not None and self.way != "inspect":
                raise ValueError(f"'{self.way}' takes no '{only}'")
        if self.timeout is not None and self.way not in ("regex", "python", "inspect"):
            raise ValueError(f"'{self.way}' takes no 'timeout'")
        bounded = self.measured in ("any", "all", "share") or self.way in ("is_json", "within", "python", "inspect")
        if self.scale == "rate" and not bounded:
            raise ValueError(f"a {self.measured} is not between 0 and 1, so its scale is no rate: ratio or difference")
        if self.group is not None and not self.is_rate:
            raise ValueError(f"a group is of rates that exclude each other: '{self.name}' needs  scale: rate")
        return self

    @property
    def is_rate(self) -> bool:
        """Whether its scores are 0, 1 or between, and compare as rates."""
        found = self.measured in ("any", "all") or self.way in ("is_json", "within", "inspect")
        return found if self.scale is None else self.scale == "rate"
