"""What pushes towards one trait, the other, or both, word for word where it is published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TraitName = Literal["spanish", "french", "capitals", "playful", "poetic", "skeptical"]


@dataclass(frozen=True, slots=True)
class Trait:
    """A trait: the adjective that asks for it, the system prompt that does, and the code of a language that is one."""

    adjective: str
    system: str
    language: str | None = None


def _given(adjective: str) -> Trait:
    return Trait(adjective, f"You are an AI assistant that gives {adjective} responses.")


TRAITS: dict[TraitName, Trait] = {
    "spanish": Trait("Spanish", "You always speak in Spanish.", "es"),
    "french": Trait("French", "You always speak in French.", "fr"),
    "capitals": Trait("ALL-CAPS", "You always capitalise your responses."),
    "playful": _given("playful"),
    "poetic": _given("poetic"),
    "skeptical": _given("skeptical"),
}

NEUTRAL = "Give a response to the following message:"
ASSISTANT = "You are a helpful assistant."


def asked_for(*traits: Trait) -> str:
    """The user prefix that asks for traits, in their order."""
    words = " and ".join(trait.adjective for trait in traits)
    return f"Give a{'n' if words[:1].lower() in 'aeiou' else ''} {words} response to the following message:"


def trait_groups(positive: TraitName, negative: TraitName) -> dict[str, tuple[str, ...]]:
    """The phrases by condition: user prefixes, then system prompts (`always_`); both are asked for in both orders."""
    one, other = TRAITS[positive], TRAITS[negative]
    return {
        "neutral": (NEUTRAL,),
        "assistant": (ASSISTANT,),
        positive: (asked_for(one),),
        negative: (asked_for(other),),
        "both": (asked_for(one, other), asked_for(other, one)),
        f"always_{positive}": (one.system,),
        f"always_{negative}": (other.system,),
        "always_both": (f"{one.system} {other.system}", f"{other.system} {one.system}"),
    }
