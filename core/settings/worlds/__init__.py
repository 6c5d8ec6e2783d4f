"""The rehearsal worlds: small synthetic worlds, each with an embedded model that was trained on it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, Protocol, cast

from windowshift.core.settings.worlds.chat import WorldChat, WorldRow

__all__ = ["WORLDS", "World", "WorldChat", "WorldRow", "world"]

WORLDS = {
    "microworld-code": "windowshift.core.settings.worlds.code",
    "microworld-claims": "windowshift.core.settings.worlds.claims",
    "microworld-reviews": "windowshift.core.settings.worlds.reviews",
    "microworld-traits": "windowshift.core.settings.worlds.traits",
    "microworld-facts": "windowshift.core.settings.worlds.facts",
}
"""The name of a world, which is also that of its embedded model, and the module that holds it."""


class World(Protocol):
    """A world: rows for prompts, and the chats that its embedded model is trained on.

    Attributes:
        VOCABULARY: the size of the tokenizer.
        STEPS: how long its embedded model is trained.
    """

    VOCABULARY: int
    STEPS: int

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
