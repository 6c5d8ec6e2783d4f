"""Settings: prompts, behaviours and the condition groups that make sense for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from windowshift.core.contract.conditions import Condition
from windowshift.core.contract.generation import Completion
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.records import Behaviour

Scores = Mapping[str, tuple[float | None, str | None]]
"""Behaviour → (value, reason); a value of None is a missing measurement and the reason says why."""


class Scorer(Protocol):
    """Measures one or more behaviours on a completion, without a model."""

    @property
    def name(self) -> str:
        """What people read."""
        ...

    @property
    def behaviours(self) -> tuple[Behaviour, ...]:
        """What it measures, the primary behaviour first."""
        ...

    def identity(self) -> dict[str, Any]:
        """Everything that determines a score besides the completion, as JSON, for job hashes."""
        ...

    def score(self, prompt: Prompt, completion: Completion) -> Scores:
        """Score one completion that did not fail."""
        ...


class Setting(Protocol):
    """What an experiment is about. Found by name through the entry points `windowshift.settings`."""

    @property
    def name(self) -> str:
        """The name in specs."""
        ...

    @property
    def scorers(self) -> Sequence[Scorer]:
        """The scorers, the one of the primary behaviour first."""
        ...

    def conditions(self) -> Mapping[str, Condition]:
        """The conditions that a spec may name, in their natural order."""
        ...

    def default_prompts(self) -> str | None:
        """The prompt source where a spec names none; None: a spec must name one."""
        ...
