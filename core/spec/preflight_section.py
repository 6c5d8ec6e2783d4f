"""The preflight of a spec: a pilot that must pass before anything is trained."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from windowshift.core.spec.section import Count, Section


class PreflightSection(Section):
    """A pilot: the base model under every condition, and D, over the first `prompts` prompts of some `seeds`.

    Where a gate fails, `run` stops before anything is trained. What the pilot made is part of the grid.
    """

    seeds: Annotated[int, Field(gt=0, le=10_000)] = 2
    prompts: Count = 32
