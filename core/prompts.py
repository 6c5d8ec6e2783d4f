"""Prompts: where a setting's instructions come from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Prompt:
    """One instruction: `id` is unique in its source."""

    id: str
    text: str

    @cached_property
    def digest(self) -> str:
        """A hash of id and text."""
        return hashlib.sha256(f"{self.id}\0{self.text}".encode()).hexdigest()[:32]


def set_digest(prompts: Sequence[Prompt]) -> str:
    """A hash of prompts in their order."""
    return hashlib.sha256("\n".join(prompt.digest for prompt in prompts).encode()).hexdigest()[:32]
