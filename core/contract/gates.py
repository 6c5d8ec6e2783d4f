"""Gates: what a pilot must show before the rest of an experiment is worth its money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

GateName = Literal["jobs", "answers", "base rates", "conditions", "hooks", "training", "power"]


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate, and what it found in one sentence."""

    name: GateName
    passed: bool
    said: str


@dataclass(frozen=True, slots=True)
class Preflight:
    """What a pilot came to, over the first `prompts` prompts of `seeds` seeds.

    `rows` names what it trained: (arm, generation condition, train condition); nothing where it trained nothing, or a
    gate failed before. `anyway` says that a person had the run go on although gates failed; `at` is when, in Unix
    seconds.
    """

    at: float
    seeds: int
    prompts: int
    gates: tuple[Gate, ...]
    anyway: bool = False
    rows: tuple[tuple[str, str, str], ...] = ()

    @property
    def failed(self) -> tuple[Gate, ...]:
        """The gates that failed."""
        return tuple(gate for gate in self.gates if not gate.passed)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Preflight:
        """The inverse of `to_json`."""
        rows = tuple((arm, generate, train) for arm, generate, train in data.get("rows", ()))
        return cls(**{**data, "gates": tuple(Gate(**gate) for gate in data["gates"]), "rows": rows})
