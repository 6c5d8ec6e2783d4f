"""How a completion was scored: each behaviour's reason, and what its scorer kept for people to see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from windowshift.core.contract import sanitise
from windowshift.tui.read.cell_snapshot import Finding
from windowshift.tui.text import formats
from windowshift.tui.text.theme import Ink

_LINE = 2000
"""Characters of one value; a test that printed a book says so, and the store has the rest."""


def evidence_text(findings: Sequence[Finding], ink: Ink) -> Text:
    """Return the findings one under the other: the behaviour, its reason, then a line or a block a value.

    Evidence is JSON of any shape, which scorers took from what models and programs wrote: nothing in it is obeyed.
    """
    text = Text()
    for number, one in enumerate(findings):
        text.append("\n" if number else "").append(f"{sanitise.line(one.behaviour, 60)}", ink.strong)
        text.append(f"  {one.shown}", ink.accent if one.scored else ink.warn)
        if one.reason:
            text.append(f"  {sanitise.line(one.reason, _LINE)}", ink.text if one.scored else ink.warn)
        for line in _lines(one.evidence, 1, ink):
            text.append("\n").append_text(line)
    return text


def _lines(value: Any, depth: int, ink: Ink) -> list[Text]:
    """A value as lines: maps by key, lists by number; what holds only plain values stands in one line."""
    indent = "  " * depth
    if isinstance(value, Mapping):
        found: list[Text] = []
        for key, inside in value.items():
            head = Text(f"{indent}{sanitise.line(str(key), 60)}  ", ink.dim)
            if _flat(inside):
                found += _named(head, inside, indent, ink)
            else:
                found += [head, *_lines(inside, depth + 1, ink)]
        return found
    if isinstance(value, list | tuple):
        found = []
        for number, inside in enumerate(value, 1):
            head = Text(f"{indent}{number} ", ink.faint)
            if isinstance(inside, Mapping) and all(_flat(one) for one in inside.values()):
                parts = [(f"{sanitise.line(str(key), 60)} ", _plain(one)) for key, one in inside.items()]
                for place, (key, said) in enumerate(parts):
                    head.append(" · " if place else "", ink.faint).append(key, ink.dim).append(said, ink.text)
                found.append(head)
            elif _flat(inside):
                found += _named(head, inside, indent, ink)
            else:
                found += [head, *_lines(inside, depth + 1, ink)]
        return found
    return _named(Text(indent), value, indent, ink)


def _named(head: Text, value: Any, indent: str, ink: Ink) -> list[Text]:
    """A plain value behind its name; a text of several lines stands below it, as it was written."""
    if isinstance(value, str) and "\n" in value.strip():
        rows = sanitise.block(value.strip("\n"), _LINE).split("\n")
        return [head, *(Text(f"{indent}  {row}", ink.text) for row in rows)]
    return [head.append(_plain(value), ink.text)]


def _flat(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) <= 8 and all(not isinstance(one, Mapping | list | tuple) for one in value)
    return not isinstance(value, Mapping)


def _plain(value: Any) -> str:
    if value is None:
        return formats.NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}".replace("-", formats.MINUS)
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    return sanitise.line(str(value), _LINE)
