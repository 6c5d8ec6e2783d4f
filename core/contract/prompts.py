"""Prompts: where a setting's instructions come from."""

from __future__ import annotations

import hashlib
import json
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
        return _hash([self.id, self.text])


def set_digest(prompts: Sequence[Prompt]) -> str:
    """A hash of prompts in their order."""
    return _hash([prompt.digest for prompt in prompts])


def _hash(parts: list[str]) -> str:
    # JSON keeps the parts apart, and its ASCII escapes take lone surrogates too.
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
