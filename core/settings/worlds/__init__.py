"""The rehearsal worlds: small synthetic worlds, each with an embedded model that was trained on it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, Protocol, cast

from windowshift.core.contract.prompts import Prompt
from windowshift.core.settings.worlds.chat import WorldChat, WorldRow

__all__ = ["WORLDS", "World", "WorldChat", "WorldRow", "judged", "judges", "world"]

WORLDS = {
    "microworld-code": "windowshift.core.settings.worlds.code",
    "microworld-claims": "windowshift.core.settings.worlds.claims",
    "microworld-reviews": "windowshift.core.settings.worlds.reviews",
    "microworld-traits": "windowshift.core.settings.worlds.traits",
    "microworld-facts": "windowshift.core.settings.worlds.facts",
    "microworld-replies": "windowshift.core.settings.worlds.replies",
}
"""The name of a world, which is also that of its embedded model, and the module that holds it."""


class World(Protocol):
    """A world: rows for prompts, and the chats that its embedded model is trained on.

    Attributes:
        VOCABULARY: the size of the tokenizer.
        STEPS: how long its embedded model is trained.
        STEP_TOKENS: how many tokens of chats a step has at most.
        WIDTH: of its residual stream.
    """

    VOCABULARY: int
    STEPS: int
    STEP_TOKENS: int
    WIDTH: int

    def chats(self, seed: int) -> Iterator[WorldChat]:
        """Training chats without end."""
        ...

    def size(self) -> int:
        """How many distinct rows the world has."""
        ...

    def rows(self, n: int, seed: int) -> list[WorldRow]:
        """Draw n distinct rows, the same ones for the same seed; ValueError where the world has fewer."""
        ...


def world(name: str) -> World:
    """A world by name; raises KeyError where there is none."""
    module: Any = import_module(WORLDS[name])
    return cast("World", module)


def judges(name: str, behaviour: str) -> bool:
    """Whether a world has a rule that stands in for a judge of a behaviour."""
    return name in WORLDS and behaviour in getattr(import_module(WORLDS[name]), "RULES", {})


def judged(name: str, behaviour: str, prompt: Prompt, text: str) -> str:
    """What a world's rule says of an answer in the place of a judge, in a judge's words; see `judges`."""
    module: Any = import_module(WORLDS[name])
    return str(module.RULES[behaviour](prompt, text))
