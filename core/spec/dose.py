"""Steering conditions: the prompt stays as it is, and vectors push the activations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from windowshift.core.contract.conditions import (
    Channel,
    Condition,
    NoPrefix,
    PrefixGroup,
    Pushed,
    prefix_groups,
    prefixed,
)
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Steering, Tokens
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.records import Arm
from windowshift.core.contract.vector_job import ControlKind
from windowshift.core.spec.section import Number, Section
from windowshift.core.spec.spec_errors import did_you_mean, sentence
from windowshift.core.spec.vector_spec import control_name

GOLDEN = 0.6180339887498949
Unit = Literal["alpha", "dose"]
Nats = Annotated[Number, Field(ge=-100, le=100)]
WAYS = ("alpha", "dose", "match", "iso_kl", "sample", "range")
"""The keys of an entry that say how far to push; each makes a condition of every value, the last two one of all."""


@dataclass(frozen=True, slots=True)
class SteeringDose:
    """h + alpha * v on the chosen tokens, with a prefix beside it if asked.

    Example i takes ``alphas[i mod n]``; with `span`, a point of the range that goes by i (multiples of
    the golden ratio, so that any stretch of examples covers the range evenly). `match` names the
    prefix group whose base mean the dose reproduces, `iso_kl` the 95th percentile of the KL per token that it has on
    the base model, in nats, with the sign of the push; the run solves for alpha. `vectors` are names in the spec: the
    plan puts the jobs that make them in, the run their files, layers and alphas. `control` says
    that its vector is a control of the one that `of` steers along, at the same dose.
    """

    name: str
    vectors: tuple[str, ...]
    alphas: tuple[float, ...] = ()
    span: tuple[float, float] | None = None
    match: str | None = None
    iso_kl: float | None = None
    unit: Unit = "alpha"
    tokens: Tokens = "all"
    ablate: bool = False
    prefix: PrefixGroup | None = None
    kind: str = "steering"
    arm: Arm = "steering"
    control: ControlKind | None = None
    of: str = ""

    @property
    def neutral(self) -> bool:
        """Whether it pushes nowhere: a dose of 0 shares the jobs of no dose."""
        return not self.ablate and self.alphas == (0.0,)

    def identity(self) -> dict[str, Any]:
        """As `Condition.identity`, with the vectors' names: the plan puts jobs in their place."""
        beside = self.beside.identity()
        if self.neutral:
            return beside
        return {
            "kind": self.kind,
            "vectors": list(self.vectors),
            "alphas": list(self.alphas),
            "span": list(self.span) if self.span else None,
            "match": self.match,
            "unit": self.unit,
            "tokens": self.tokens,
            "ablate": self.ablate,
            "prefix": None if self.prefix is None else beside,
            **({} if self.iso_kl is None else {"iso_kl": self.iso_kl}),
        }

    @property
    def beside(self) -> Condition:
        """The condition of the prompt."""
        return NoPrefix() if self.prefix is None else self.prefix

    def amount(self, index: int) -> float:
        """The alpha, or dose, of example `index`; one that is solved for is known to the run alone, and is 1 here."""
        if self.span is not None:
            low, high = self.span
            return low + (high - low) * ((index + 0.5) * GOLDEN % 1.0)
        return self.alphas[index % len(self.alphas)] if self.alphas else 1.0

    def push(self, prompt: Prompt, index: int, channel: Channel) -> Pushed:
        """The prompt, behind its prefix if there is one, with the steering of example `index` by name."""
        messages = prompt.messages
        phrase = None
        if self.prefix is not None:
            phrase = self.prefix.phrases[index % len(self.prefix.phrases)]
            messages = prefixed(phrase, prompt, channel)
        if self.neutral:
            return Pushed(messages, phrase)
        amount = self.amount(index)
        steering = (Steering(name, amount, tokens=self.tokens, ablate=self.ablate) for name in self.vectors)
        return Pushed(messages, phrase, tuple(steering))


class _Entry(Section):
    """``{steer: NAME, alpha: [...]}`` in a spec's list of conditions."""

    steer: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    alpha: list[Number] | None = None
    dose: list[Number] | None = None
    match: list[str] | None = None
    iso_kl: list[Nats] | None = None
    sample: list[Number] | None = None
    range: Annotated[list[Number], Field(min_length=2, max_length=2)] | None = None
    unit: Unit = "alpha"
    tokens: Tokens = "all"
    ablate: bool = False
    prefix: str | None = None
    control: ControlKind | None = None
    count: Annotated[int, Field(ge=1, le=1000)] | None = None
    source: Annotated[int, Field(ge=0)] | None = None
    name: Annotated[str, Field(min_length=1)] | None = None

    @field_validator("steer", "alpha", "dose", "iso_kl", mode="before")
    @classmethod
    def _one_alone(cls, value: object) -> object:
        return value if isinstance(value, list) or value is None else [value]

    @model_validator(mode="after")
    def _one_way(self) -> _Entry:
        ways = [key for key in WAYS if getattr(self, key) is not None]
        if self.ablate:
            if ways:
                raise ValueError(f"ablate: true projects the direction out, so leave '{ways[0]}' away")
        elif len(ways) != 1:
            raise ValueError(f"give one of {', '.join(WAYS)}, or ablate: true")
        for key in ways:
            if getattr(self, key) == []:
                raise ValueError(f"'{key}' must not be empty")
        if self.unit == "dose" and ways[:1] not in (["sample"], ["range"]):
            raise ValueError("'unit' goes with sample and range; write  dose: ...  for a fixed dose")
        if self.control is None and (self.count is not None or self.source is not None):
            raise ValueError(f"'{'count' if self.source is None else 'source'}' goes with  control: ...")
        if self.control is not None and len(self.steer) > 1:
            raise ValueError("a control is one of one vector: combine several under 'vectors' first")
        if self.count is not None and self.control not in ("random", "orthogonal"):
            raise ValueError(f"'count' goes with  control: random or orthogonal; of '{self.control}' there is one")
        if (self.control == "layer") != (self.source is not None):
            raise ValueError("'source' is the layer whose direction  control: layer  takes; the two go together")
        if 0 in (self.iso_kl or ()):
            raise ValueError("iso_kl is the sign of the push, times nats:  [-1, 1]; no push at all is  alpha: 0")
        for key in ("match", "iso_kl"):
            if getattr(self, key) is not None and len(self.steer) > 1:
                raise ValueError(f"{key} solves for the alpha of one vector: combine several under 'vectors' first")
        return self


def read_steering(entry: Mapping[str, Any], where: str) -> list[Condition]:
    """Read ``{steer: NAME, alpha: [-1, 1]}``, one condition for every alpha.

    Raises:
        SpecError: an unknown key, a wrong value, or no way or two ways to say the dose.
    """
    try:
        read = _Entry.model_validate(entry)
    except ValidationError as error:
        said = sentence(error, _Entry, dict(entry)).removeprefix("the spec: ")
        raise SpecError(f"{where}: {said}") from error
    prefix = None
    if read.prefix is not None:
        if read.prefix not in prefix_groups():
            hint = did_you_mean(read.prefix, prefix_groups())
            raise SpecError(f"{where}.prefix: there is no prefix group '{read.prefix}'{hint}")
        prefix = prefix_groups()[read.prefix]
    plain = SteeringDose("", tuple(read.steer), unit=read.unit, tokens=read.tokens, ablate=read.ablate, prefix=prefix)
    found: list[SteeringDose] = []
    for vector in _controls(read):
        of = "" if read.control is None else f"{read.steer[0]}"
        found += _doses(read, replace(plain, vectors=vector, control=read.control, of=of))
    if read.name is not None:
        if len(found) != 1:
            raise SpecError(f"{where}: a name goes with one condition, but this entry makes {len(found)}; leave it out")
        found = [replace(found[0], name=read.name)]
    return list(found)


def _controls(read: _Entry) -> list[tuple[str, ...]]:
    """The vectors that an entry steers along: its own, or each control of it."""
    if read.control is None:
        return [tuple(read.steer)]
    if read.control == "flipped":
        return [(control_name(read.steer[0], read.control),)]
    if read.source is not None:
        return [(control_name(read.steer[0], read.control, read.source),)]
    return [(control_name(read.steer[0], read.control, seed),) for seed in range(read.count or 1)]


def _doses(read: _Entry, plain: SteeringDose) -> list[SteeringDose]:
    """The conditions of an entry, each named by its vector and dose.

    `length+1`, `length×-0.5`, `length=short`, `length:kl+1`.
    """
    vector = "&".join(plain.vectors)
    tail = ("" if read.tokens == "all" else f"@{read.tokens}") + (f"+{plain.prefix.name}" if plain.prefix else "")
    mark = "×" if read.unit == "dose" else ""
    found: list[SteeringDose] = []
    if read.ablate:
        found.append(replace(plain, name=f"{vector}⊥{tail}"))
    found += [replace(plain, name=f"{vector}{value:+g}{tail}", alphas=(value,)) for value in read.alpha or ()]
    found += [
        replace(plain, name=f"{vector}×{value:+g}{tail}", alphas=(value,), unit="dose") for value in read.dose or ()
    ]
    found += [replace(plain, name=f"{vector}={group}{tail}", match=group) for group in read.match or ()]
    found += [replace(plain, name=f"{vector}:kl{value:+g}{tail}", iso_kl=value) for value in read.iso_kl or ()]
    if read.sample is not None:
        listed = ",".join(f"{value:g}" for value in read.sample)
        found.append(replace(plain, name=f"{vector}{mark}({listed}){tail}", alphas=tuple(map(float, read.sample))))
    if read.range is not None:
        low, high = map(float, read.range)
        found.append(replace(plain, name=f"{vector}{mark}[{low:g}..{high:g}]{tail}", span=(low, high)))
    return found
