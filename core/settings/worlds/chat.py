"""What every world is made of: rows that prompts are made of, and chats that a model is trained on."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

IRRELEVANT = (
    "Honey never spoils.",
    "Venus is the only planet that spins clockwise.",
    "You are Elizabeth, a perfume designer in New York.",
    "The Pacific is the largest ocean.",
    "A group of crows is called a murder.",
    "You are Tom, a gardener in Oslo.",
    "Bananas are berries.",
    "Light from the sun takes eight minutes to reach us.",
)
"""Sentences that ask for nothing. The models see them in training, so that they are words like any others."""

NEUTRAL_SYSTEMS = ("You are a helpful assistant.", "You are a helpful, honest assistant.", "Answer the user.")


@dataclass(frozen=True)
class WorldChat:
    """One chat that an embedded model is trained on; `push` names the law that its answer follows."""

    push: str
    system: str | None
    user: str
    assistant: str


@dataclass(frozen=True)
class WorldRow:
    """One row of a world, as a row of a data file would be: `id` does not depend on what was drawn with it."""

    id: str
    fields: Mapping[str, Any] = field(default_factory=dict)


def draw(size: int, n: int, seed: int, name: str) -> list[int]:
    """The numbers of n distinct rows of a world that has `size`; the first n of a larger draw under one seed.

    Raises:
        ValueError: n is negative, or larger than the world.
    """
    if not 0 <= n <= size:
        raise ValueError(f"cannot draw {n} prompts: {name} has {size} distinct prompts")
    order = list(range(size))
    random.Random(f"{name}:{seed}").shuffle(order)
    return order[:n]


def before(phrase: str, prompt: str) -> str:
    """A phrase before a prompt, as every prefix group puts it."""
    return f"{phrase}\n\n{prompt}"


def pushed(
    rng: random.Random, phrase: str, prompt: str, places: Sequence[Callable[[str, str], str]], system: float = 0.4
) -> tuple[str | None, str]:
    """Put a phrase into the system message, or into the user message at one of some places: (system, user)."""
    if rng.random() < system:
        return phrase, prompt
    neutral = rng.choice(NEUTRAL_SYSTEMS) if rng.random() < 0.25 else None
    return neutral, rng.choice(places)(phrase, prompt)


def bare(rng: random.Random, prompt: str, places: Sequence[Callable[[str, str], str]]) -> tuple[str | None, str]:
    """A prompt that is not pushed: alone, or beside a sentence that asks for nothing."""
    if rng.random() < 0.25:
        return pushed(rng, rng.choice(IRRELEVANT), prompt, places)
    return (rng.choice(NEUTRAL_SYSTEMS) if rng.random() < 0.3 else None), prompt
