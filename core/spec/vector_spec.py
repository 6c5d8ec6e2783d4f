"""The `vectors` of a spec: where each steering vector comes from, and how its layer and doses are found."""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from windowshift.core.contract.vector_job import ControlKind, ExtractTokens
from windowshift.core.spec.section import Count, Number, Section

UPWARDS = [0.125, 0.25, 0.375, 0.5, 0.75]


class CompletionsFile(Section):
    """A JSONL file of chats: ``{"messages": [...]}`` that end with the answer, or ``{"prompt", "completion"}``."""

    file: str


class Calibration(Section):
    """How doses are tried on the base model: first to choose a layer, then for the curve at that layer.

    `doses` are in residual-RMS units and without 0, which is always there; `layers` None takes up to eight,
    evenly spaced. Each (layer, dose) is sampled on `prompts` eval prompts. The dose curve then has `points`
    alphas on either side of 0, as far as `reach` times the range over which text stayed sound. `matching: refined`
    sweeps with the tokens that the condition pushes, and solves a matched dose anew on `development` prompts, which
    neither D nor the evaluation has; the KL of `iso_kl` is measured on them too.
    """

    layers: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None
    doses: Annotated[list[Number], Field(min_length=2)] = [-0.75, -0.5, -0.375, -0.25, -0.125, *UPWARDS]
    prompts: Count = 16
    points: Annotated[int, Field(ge=2, le=50)] = 6
    reach: Annotated[float, Field(ge=1, le=4, strict=False)] = 1.5
    matching: Literal["curve", "refined"] = "curve"
    development: Annotated[int, Field(ge=8, le=100_000)] = 64

    @field_validator("doses")
    @classmethod
    def _no_zero(cls, value: list[float]) -> list[float]:
        if 0 in value or len(set(value)) != len(value):
            raise ValueError("doses are different numbers without 0, which is measured anyway")
        if not min(value) < 0 < max(value):
            raise ValueError("doses are tried on either side of 0: give one below it and one above, at least")
        return sorted(value)


class VectorSpec(Section):
    """One vector: two sides to subtract, a file, a control of another vector, or a sum of others."""

    positive: str | CompletionsFile | None = None
    negative: str | CompletionsFile | None = None
    tokens: ExtractTokens = "response"
    channel: Literal["user", "system"] | None = None
    prompts: Count = 128
    min_difference: Number | None = None
    file: str | None = None
    control: ControlKind | None = None
    of: str | None = None
    seed: int = 0
    source: Annotated[int, Field(ge=0)] | None = None
    combine: Annotated[dict[str, Number], Field(min_length=1)] | None = None
    layer: Literal["auto"] | Annotated[int, Field(ge=0)] | None = None
    calibrate: Calibration = Calibration()

    @model_validator(mode="after")
    def _one_way(self) -> VectorSpec:
        sides = self.positive is not None or self.negative is not None
        ways = [sides, self.file is not None, self.control is not None, self.combine is not None]
        if sum(ways) != 1:
            raise ValueError("give one of: positive and negative, file, control and of, combine")
        if sides and (self.positive is None or self.negative is None):
            raise ValueError("a vector needs both sides, positive and negative")
        if (self.control is None) != (self.of is None):
            raise ValueError("a control needs the vector that it is a control of:  control: random, of: NAME")
        if (self.control == "layer") != (self.source is not None):
            raise ValueError("'source' is the layer whose direction  control: layer  takes; the two go together")
        if sides and isinstance(self.positive, str) != isinstance(self.negative, str):
            raise ValueError("positive and negative must both be conditions, or both be files")
        return self


_DERIVED = re.compile(rf"(?P<of>.+)~(?P<control>{'|'.join(get_args(ControlKind))})(?P<number>\d*)")


def control_name(of: str, control: ControlKind, number: int | None = None) -> str:
    """What a control that a condition asks for is called: ``length~random3``; `number` is its seed, or its layer."""
    return f"{of}~{control}{'' if number is None else number}"


def control_vector(name: str) -> VectorSpec | None:
    """The control that a name of `control_name` stands for; None: the name is of another sort."""
    found = _DERIVED.fullmatch(name)
    if found is None:
        return None
    control: ControlKind = next(one for one in get_args(ControlKind) if one == found["control"])
    number = int(found["number"] or 0)
    if control == "layer":
        return VectorSpec(control=control, of=found["of"], source=number)
    return VectorSpec(control=control, of=found["of"], seed=number)
