"""Requests that nobody waits for any more."""

from __future__ import annotations

from collections.abc import Sequence


class GivenUp:
    """The keys of requests under way, and which of them were given up; several threads may use it."""

    def __init__(self) -> None:
        self._under_way: set[str] = set()
        self._keys: set[str] = set()

    def begin(self, keys: Sequence[str]) -> None:
        """A call begins."""
        self._under_way.update(keys)

    def add(self, keys: Sequence[str]) -> list[str]:
        """Give requests up; those of them that are under way."""
        known = [key for key in keys if key in self._under_way]
        self._keys.update(known)
        return known

    def end(self, keys: Sequence[str]) -> None:
        """A call has ended: its keys mean nothing now."""
        self._under_way.difference_update(keys)
        self._keys.difference_update(keys)

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def __bool__(self) -> bool:
        return bool(self._keys)
