"""What one row of a batch asks for: its pushes, resolved to directions and layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Steering, Tokens
from windowshift.steering.vector import SteeringVector, check

_ORDER: tuple[Tokens, ...] = ("all", "prompt", "response")
_DEPENDENT = 1e-6

StageKey = tuple[int, bool, int, str, int]
"""Layer, whether it adds, rank of its tokens, the vector's file, and how often that came before in the row."""


@dataclass(frozen=True, slots=True, eq=False)
class Push:
    """One direction [width], float64, at one layer, for the tokens named.

    An additive push adds alpha * direction. An ablation takes the projection on the direction away, which
    then has length 1 and is orthogonal to those ablated before it. `slot` is its line in the tally.
    """

    vector: str
    layer: int
    alpha: float
    tokens: Tokens
    ablate: bool
    direction: NDArray[np.float64]
    place: tuple[str, int]
    slot: int

    @property
    def stage(self) -> StageKey:
        """What sorts pushes into an order that does not depend on the batch: ablations first."""
        rank = _ORDER.index(self.tokens) if self.ablate else 0
        return (self.layer, not self.ablate, rank, *self.place)


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """The pushes of one row; empty where nothing is to be done. `number` counts the recipes of one use."""

    number: int
    steering: tuple[Steering, ...]
    pushes: tuple[Push, ...]


def resolve(
    steering: Sequence[Steering],
    load: Callable[[str], SteeringVector],
    *,
    fingerprint: str | None,
    width: int,
    layers: int,
    number: int,
    first_slot: int,
) -> Recipe:
    """Resolve what a row asks for; alpha 0 is no push at all, so it equals no steering exactly.

    Raises:
        SpecError: a vector cannot be read, or does not fit the model.
        BackendError: alpha is not a finite number.
    """
    pushes: list[Push] = []
    wanted = [one for one in steering if one.ablate or one.alpha != 0]
    # Pushes on all tokens come first: what is ablated on some tokens must be orthogonal to those.
    ablations = sorted((one for one in wanted if one.ablate), key=lambda one: _ORDER.index(one.tokens))
    for one in [*ablations, *(one for one in wanted if not one.ablate)]:
        if not np.isfinite(one.alpha):
            raise BackendError(f"alpha must be a finite number, got {one.alpha}")
        vector = load(one.vector)
        layer = check(vector, fingerprint, width, layers, one.layer)
        direction = vector.direction(layer).astype(np.float64)
        if one.ablate:
            rest = _orthogonal(direction, [push for push in pushes if _covers(push, layer, one.tokens)])
            if rest is None:
                continue  # it lies in what is ablated already
            direction = rest
        again = sum(push.layer == layer and push.place[0] == one.vector for push in pushes)
        place = (one.vector, again)
        slot = first_slot + len(pushes)
        pushes.append(Push(vector.name, layer, one.alpha, one.tokens, one.ablate, direction, place, slot))
    return Recipe(number, tuple(steering), tuple(pushes))


def _covers(push: Push, layer: int, tokens: Tokens) -> bool:
    return push.ablate and push.layer == layer and push.tokens in ("all", tokens)


def _orthogonal(direction: NDArray[np.float64], before: Sequence[Push]) -> NDArray[np.float64] | None:
    """The unit vector of what is left of a direction without those before it (Gram-Schmidt)."""
    rest = direction / np.linalg.norm(direction)
    for _ in range(2):  # twice is enough for orthogonality to rounding (Kahan)
        for push in before:
            rest = rest - (rest @ push.direction) * push.direction
        length = float(np.linalg.norm(rest))
        if length < _DEPENDENT:
            return None
        rest = rest / length
    return rest
