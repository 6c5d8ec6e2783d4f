"""How a person names a cell or a row of a grid in one word: GENERATE/TRAIN/EVALUATE, whatever stands in the names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from windowshift.core.contract.errors import SpecError

ENCODED = "%2F"
"""Stands for a slash within a name, where it is needed to tell names apart."""


def cell_name(parts: Sequence[str]) -> str:
    """The names of conditions with slashes between; a slash within one is written as `%2F`."""
    return "/".join(part.replace("/", ENCODED) for part in parts)


def parts_of(text: str) -> tuple[str, ...]:
    """The names in a word, at its slashes; `%2F` is one within a name."""
    return tuple(part.replace(ENCODED, "/").replace(ENCODED.lower(), "/") for part in text.split("/"))


def find_cell(text: str, known: Iterable[tuple[str, ...]]) -> tuple[str, ...] | None:
    """Which of the known cells or rows a word names; None: none of them.

    A name may hold slashes itself: the word is read in every way in which it names one that is there.

    Raises:
        SpecError: it names several.
    """
    there = dict.fromkeys(known)
    exact = parts_of(text)
    if exact in there:
        return exact
    found = [one for one in there if "/".join(one) == text]
    if len(found) > 1:
        ways = " or ".join(cell_name(one) for one in found)
        raise SpecError(f"'{text}' names {len(found)} of them, as names hold slashes: write {ways}")
    return found[0] if found else None
