"""Phrases that take something from the prompt: ``{prompt}`` and ``{payload.claim}``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.prompts import Prompt

PROMPT = "{prompt}"
"""Where the prompt itself goes; a phrase without it goes before the prompt."""

_FIELD = re.compile(r"(\{prompt\}|\{payload\.[A-Za-z_]\w*\})")


def phrase_parts(phrase: str, prompt: Prompt) -> Iterator[tuple[str, bool]]:
    """A phrase with what it takes from a prompt: parts of text, and whether a part is the prompt itself.

    What the prompt does not carry stays as it is written.
    """
    for part in _FIELD.split(phrase):
        key = _key(part)
        if part == PROMPT:
            yield prompt.text, True
        elif key is not None and key in prompt.payload:
            value = prompt.payload[key]
            yield value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), False
        elif part:
            yield part, False


def written(phrase: str, prompt: Prompt) -> str:
    """A phrase with what it takes from a prompt.

    Raises:
        SpecError: the prompt does not carry it.
    """
    for part in _FIELD.findall(phrase):
        key = _key(part)
        if key is not None and key not in prompt.payload:
            there = ", ".join(prompt.payload) or "nothing besides its text"
            raise SpecError(
                f"prompt '{prompt.id}' has no '{key}', which the phrase '{phrase}' asks for (it has {there})"
            )
    return "".join(text for text, _ in phrase_parts(phrase, prompt))


def fixed_parts(phrase: str) -> list[str]:
    """What is the same of a phrase for every prompt."""
    return [part for part in _FIELD.split(phrase) if part.strip() and not _FIELD.fullmatch(part)]


def _key(part: str) -> str | None:
    return part[len("{payload.") : -1] if part.startswith("{payload.") and _FIELD.fullmatch(part) else None
