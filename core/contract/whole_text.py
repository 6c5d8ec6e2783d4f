"""Whole text: text that UTF-8 can hold, and where in a value it is not.

JSON can name half of a surrogate pair (``"\\ud83d"``): scraped data that somebody cut at a length is full of
them. Neither the store nor a tokenizer can take one, so it is refused where it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from windowshift.core.contract.errors import SpecError

HALF = "holds half of a surrogate pair, which no UTF-8 text can hold: mend or leave out that text"


def is_whole(text: str) -> bool:
    """Whether UTF-8 can hold a text."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def half_at(value: Any, place: str = "") -> str | None:
    """The place of the first text in a JSON value that is not whole, as in ``train[2].name``; None: all are."""
    if isinstance(value, str):
        return None if is_whole(value) else place
    if isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, str) and not is_whole(key):
                return f"{place}.{key!a}" if place else f"{key!a}"
            found = half_at(item, f"{place}.{key}" if place else str(key))
            if found is not None:
                return found
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            found = half_at(item, f"{place}[{index}]")
            if found is not None:
                return found
    return None


def require_whole(value: Any, where: str, place: str = "") -> None:
    """Refuse a JSON value with a text in it that is not whole.

    Args:
        value: a text, or what holds texts.
        where: what a person is told first, e.g. ``prompts.jsonl line 3``.
        place: the name of the value itself, where it has one.

    Raises:
        SpecError: it names `where`, and the key or entry in the value.
    """
    found = half_at(value, place)
    if found is not None:
        raise SpecError(f"{where}: {f'the text of {found!r}' if found else 'the text'} {HALF}")
