"""One sentence for what pydantic found wrong in a spec."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from windowshift.core.contract import sanitise

_LONGEST = 4000  # characters of a sentence: a list of everything that is known may be long

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "bool_type": "true or false",
}


def sentence(error: ValidationError, model: type[BaseModel], data: object) -> str:
    """Say the first thing that is wrong, where, and what to do; then how many more there are.

    An unknown key comes first: a misspelt key is often why another one is missing.
    """
    found = _meant(error.errors(include_url=False), data)
    best = min(found, key=lambda item: (item["type"] != "extra_forbidden", -_depth(item, data)))
    # Keys and values are a person's own, and may hold line breaks and what a terminal obeys.
    text = sanitise.line(_say(best, model, data), _LONGEST)
    places = {_place(item["loc"], data) for item in found}
    more = len(places) - 1
    return text if more <= 0 else f"{text} ({more} more {'place is' if more == 1 else 'places are'} wrong)"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``: did you mean 'x'?``, or the list of what is known."""
    names = sorted(known)
    near = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    return f": did you mean '{near[0]}'?" if near else f"; known are {', '.join(names)}"


def _meant(found: list[ErrorDetails], data: object) -> list[ErrorDetails]:
    """The errors without those of union members that were not meant: of mappings, the one with the fewest was."""
    position = 0
    while any(position < len(item["loc"]) for item in found):
        members: dict[tuple[int | str, ...], dict[str, int]] = {}
        for item in found:
            part = item["loc"][position] if position < len(item["loc"]) else None
            before = item["loc"][:position]
            here = _at(before, data)
            if isinstance(part, str) and isinstance(here, dict) and part not in here and _branch(part):
                counts = members.setdefault(before, {})
                counts[part] = counts.get(part, 0) + 1
        for before, counts in members.items():
            sections = {name: count for name, count in counts.items() if name[:1].isupper()} or counts
            best = min(sections, key=lambda name: sections[name])
            others = set(counts) - {best}
            found = [item for item in found if item["loc"][:position] != before or item["loc"][position] not in others]
        position += 1
    return found


def _at(loc: tuple[int | str, ...], data: object) -> object:
    """What stands at a pydantic location; the names of union members are no part of the way."""
    here = data
    for part in loc:
        if isinstance(part, int):
            here = here[part] if isinstance(here, list) and part < len(here) else None
        elif isinstance(here, dict) and part in here:
            here = here[part]
    return here


def _say(item: ErrorDetails, model: type[BaseModel], data: object) -> str:
    place = _place(item["loc"], data)
    kind, context, value = item["type"], item.get("ctx", {}), item["input"]
    if kind == "extra_forbidden":
        key = str(item["loc"][-1])
        parent = _model_at(model, item["loc"][:-1])
        inside = f" in {_place(item['loc'][:-1], data)}" if len(item["loc"]) > 1 else ""
        return f"unknown key '{key if len(key) <= 60 else key[:57] + '...'}'{inside}{did_you_mean(key, _keys(parent))}"
    if kind == "missing":
        return f"the key '{place}' is missing"
    if kind == "string_type" and isinstance(value, (bool, int, float)):
        why = " (as YAML reads yes, no, on and off)" if isinstance(value, bool) else ""
        return f"{place} must be text, but it is {_show(value)}{why}: put it in quotes"
    if kind == "invalid_key":
        return f"the key {_show(value)} must be text: put it in quotes"
    if kind == "finite_number":
        return f"{place} must be a finite number, but it is {_show(value)}"
    if kind in _EXPECTED:
        return f"{place} must be {_EXPECTED[kind]}, but it is {_show(value)}"
    if kind == "literal_error":
        return f"{place} must be {context.get('expected')}, but it is {_show(value)}"
    if kind in ("too_short", "string_too_short"):
        least = context.get("min_length", 1)
        return f"{place} needs at least {least} entries" if least > 1 else f"{place} must not be empty"
    if kind == "too_long":
        return f"{place} has too many entries: at most {context.get('max_length')}"
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
        bound = next((f"{words[k]} {_number(v)}" for k, v in context.items() if k in words), "in range")
        return f"{place} must be {bound}, but it is {_show(value)}"
    if kind == "string_pattern_mismatch":
        return f"{place} may hold letters, digits, '.', '_', '+' and '-' only, at most 80, but it is {_show(value)}"
    if kind == "value_error":
        said = str(context.get("error", item["msg"]))
        return f"{place}: {said}" if item["loc"] else said  # what is wrong with the whole has no place in it
    return f"{place}: {item['msg'][:1].lower()}{item['msg'][1:]}, but it is {_show(value)}"


def _keys(model: type[BaseModel] | None) -> list[str]:
    return [] if model is None else [field.alias or name for name, field in model.model_fields.items()]


def _place(loc: tuple[int | str, ...], data: object) -> str:
    """Write a pydantic location as in ``conditions.train[2].mix``, without the names of union branches."""
    text = ""
    here = data
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        if isinstance(part, int):
            text += f"[{part}]"
            here = here[part] if isinstance(here, list) and part < len(here) else None
        elif isinstance(here, dict) and (part in here or last) and not _branch(part):
            text += f".{part}" if text else part
            here = here.get(part)
        elif last and not _branch(part) and isinstance(here, dict):
            text += f".{part}" if text else part
    return text or "the spec"


def _branch(part: str) -> bool:
    return part.startswith(("str", "constrained-", "dict[", "function-", "list[")) or part[:1].isupper()


def _depth(item: ErrorDetails, data: object) -> int:
    # Of a union's branches, the one that got furthest is the one that was meant.
    return len(_place(item["loc"], data)) + (2 if isinstance(item["input"], dict) else 0)


def _model_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel] | None:
    here: Any = model
    for part in loc:
        if isinstance(part, int):
            continue
        named = [m for m in _models(here) if m.__name__ == part]
        if named:
            here = named[0]
            continue
        fields = [m.model_fields[part].annotation for m in _models(here) if part in m.model_fields]
        if fields:
            here = fields[0]
    return next(iter(_models(here)), None)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, list) or get_args(annotation):
        return [model for argument in get_args(annotation) for model in _models(argument)]
    return []


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
