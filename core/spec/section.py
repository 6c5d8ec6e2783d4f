"""The base of every part of a spec."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Section(BaseModel):
    """A part of a spec; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _no_truth_value(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"a number is wanted, but it is {str(value).lower()}")
    return value


Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, le=1, strict=False)]
Number = Annotated[float, BeforeValidator(_no_truth_value), Field(strict=False, allow_inf_nan=False)]
