"""The base of every part of a spec."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A part of a spec; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, le=1, strict=False)]
Number = Annotated[float, Field(strict=False, allow_inf_nan=False)]
