"""Selective conditions: a push for the rows whose payload says so, another one, or none, for the others."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from windowshift.core.contract.conditions import Channel, Condition, Pushed
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.records import Arm

BLOCK = 20
"""Rows are flipped block by block, so that the share is exact over any set to one row a block's end."""


@dataclass(frozen=True, slots=True)
class Selective:
    """`then` for the rows that match `where`, `otherwise` for all others.

    `where` is a value, or a list of values, by payload key; all keys must match. `noise` is the share of rows
    whose assignment is flipped, by their place in D and `seed`.
    """

    name: str
    where: Mapping[str, Any] = field(hash=False)
    then: Condition
    otherwise: Condition
    noise: float = 0.0
    seed: int = 0
    kind: str = "selective"

    @property
    def arm(self) -> Arm:
        """That of what pushes."""
        return self.then.arm

    def identity(self) -> dict[str, Any]:
        """As `Condition.identity`; noise and its seed only where there is any."""
        found = {
            "kind": self.kind,
            "where": {key: self.where[key] for key in sorted(self.where)},
            "then": self.then.identity(),
            "else": self.otherwise.identity(),
        }
        return {**found, "noise": self.noise, "noise_seed": self.seed} if self.noise else found

    def matches(self, prompt: Prompt) -> bool:
        """Whether a row's payload matches, noise aside."""
        return all(key in prompt.payload and _is(prompt.payload[key], wanted) for key, wanted in self.where.items())

    def applies(self, prompt: Prompt, index: int) -> bool:
        """Whether row `index` of D is pushed by `then`, noise included."""
        return self.matches(prompt) != flipped(index, self.noise, self.seed)

    def push(self, prompt: Prompt, index: int, channel: Channel) -> Pushed:
        """As `then` or `otherwise` push."""
        return (self.then if self.applies(prompt, index) else self.otherwise).push(prompt, index, channel)


def flipped(index: int, share: float, seed: int) -> bool:
    """Whether row `index` is among the `share` of rows that are flipped: in every block about as many, at random."""
    if not share:
        return False
    block, place = divmod(index, BLOCK)
    count = math.floor((block + 1) * BLOCK * share + 1e-9) - math.floor(block * BLOCK * share + 1e-9)
    return place in random.Random(f"noise:{seed}:{block}").sample(range(BLOCK), count)


def _is(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list) and not isinstance(value, list):
        return any(_is(value, one) for one in wanted)
    if isinstance(value, bool) != isinstance(wanted, bool):
        # CSV has text only: `true` in a spec is "true" there.
        return isinstance(value, str) and value.strip().lower() == str(wanted).lower()
    if isinstance(value, str) and isinstance(wanted, int | float):
        try:
            return float(value) == wanted
        except ValueError:
            return False
    return bool(value == wanted)
