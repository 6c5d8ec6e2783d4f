"""Whose turn it is among pieces of work that wait."""

from __future__ import annotations

from collections.abc import Iterable


class Rota:
    """Work goes round: what had a turn stands behind all that waits, and what is new behind those that were there.

    It is kept in memory: after a restart of the server everybody is new, the oldest first.
    """

    def __init__(self) -> None:
        self._order: dict[str, None] = {}

    def in_turn(self, waiting: Iterable[str]) -> list[str]:
        """What waits, whose turn is next first. What does not wait any more is forgotten."""
        there = dict.fromkeys(waiting)
        self._order = {key: None for key in self._order if key in there} | {
            key: None for key in there if key not in self._order
        }
        return list(self._order)

    def had(self, key: str) -> None:
        """It has its turn: it stands behind the others from now on."""
        self._order.pop(key, None)
        self._order[key] = None
