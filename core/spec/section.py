"""The base of every part of a spec."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from windowshift.core.contract.home import at_home


class Section(BaseModel):
    """A part of a spec; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        # What was written; the defaults would bury it.
        return ((name, value) for name, value in super().__repr_args__() if name in self.model_fields_set)


def _no_truth_value(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"a number is wanted, but it is {str(value).lower()}")
    return value


def _beside(value: object, info: ValidationInfo) -> object:
    folder = (info.context or {}).get("folder", Path())
    if isinstance(value, str):
        path = at_home(value)
        return path if path.is_absolute() or not (folder / path).exists() else folder / path
    return value


SpecFile = Annotated[Path, BeforeValidator(_beside)]
"""A file that the options of a setting name: beside the spec where it is there, else in the working directory."""
Positive = Annotated[int, Field(gt=0, le=1_000_000_000)]
Count = Annotated[int, Field(gt=0, le=10_000_000)]
"""How many prompts or examples: more would fill memory before anything is refused."""
Fraction = Annotated[float, Field(gt=0, le=1, strict=False)]
Number = Annotated[float, BeforeValidator(_no_truth_value), Field(strict=False, allow_inf_nan=False, ge=-1e12, le=1e12)]
