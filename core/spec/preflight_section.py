"""The preflight of a spec: a pilot that must pass before the grid is trained."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from windowshift.core.spec.section import Count, Section

SEEDS = 2
"""Seeds of a pilot that does not say how many."""


class PreflightSection(Section):
    """A pilot: the base model under every condition, and D, over the first `prompts` prompts of some `seeds`.

    With `seeds: 2` or more said, and as many in the spec, it then trains some of the grid's own rows, to see what runs
    differ by; left out, it trains nothing. `effect` is the least effect that the grid is to see. Where a gate fails,
    `run` stops before the rest. What the pilot made is part of the grid.
    """

    seeds: Annotated[int, Field(gt=0, le=10_000)] | None = None
    prompts: Count = 32
    effect: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _seen(self) -> PreflightSection:
        if self.effect is not None and not self.trains:
            raise ValueError("effect needs seeds: 2 or more, for it takes what training runs differ by")
        return self

    @property
    def trains(self) -> bool:
        """Whether it is asked to train."""
        return self.seeds is not None and self.seeds > 1

    @property
    def piloted(self) -> int:
        """How many seeds it has."""
        return SEEDS if self.seeds is None else self.seeds
