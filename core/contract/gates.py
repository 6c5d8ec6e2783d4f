"""Gates: what a pilot must show before the rest of an experiment is worth its money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

GateName = Literal["jobs", "answers", "base rates", "conditions", "hooks"]


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate, and what it found in one sentence."""

    name: GateName
    passed: bool
    said: str


@dataclass(frozen=True, slots=True)
class Preflight:
    """What a pilot came to, over the first `prompts` prompts of `seeds` seeds.

    `anyway` says that a person had the run go on although gates failed; `at` is when, in Unix seconds.
    """

    at: float
    seeds: int
    prompts: int
    gates: tuple[Gate, ...]
    anyway: bool = False

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
        return cls(**{**data, "gates": tuple(Gate(**gate) for gate in data["gates"])})
