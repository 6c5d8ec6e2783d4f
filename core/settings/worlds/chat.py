"""What every world is made of: rows that prompts are made of, and chats that a model is trained on."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from windowshift.core.contract.conditions import PrefixGroup
from windowshift.core.contract.rewording import control_stock, negated, rephrased_by_rule

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


_REPHRASINGS = 200


@cache
def _rephrasings(phrase: str) -> tuple[str, ...]:
    return rephrased_by_rule(PrefixGroup("", (phrase,)), _REPHRASINGS)


def reworded(rng: random.Random, phrase: str, share: float = 0.3) -> str:
    """A phrase, or in a share of the cases a rephrasing as the control `rephrased` makes them."""
    return rng.choice(_rephrasings(phrase)) if rng.random() < share else phrase


@cache
def idle() -> tuple[str, ...]:
    """Sentences that ask for nothing: those of this page, and those that ship for controls."""
    stock = control_stock()
    return (*IRRELEVANT, *stock.irrelevant, *(phrase for some in stock.neutral for phrase in some))


@cache
def opposite(phrase: str) -> str:
    """A phrase with "not" in it, as the control `negated` makes it."""
    return negated(PrefixGroup("", (phrase,)))[0]


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
