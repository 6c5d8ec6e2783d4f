"""Weights of D's examples and of stretches of them: two columns of D, which its prompts carry as payload."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.training import WeightedSpan


def weights_of(
    prompt: Prompt, columns: Mapping[str, str] | None, completion: str | None = None
) -> tuple[float, tuple[WeightedSpan, ...]]:
    """The weight of an example, and those of stretches of its completion.

    Args:
        prompt: the example's, whose payload holds them.
        columns: the payload's keys by what they are, ``weight`` and ``spans``; None: everything weighs 1.
        completion: where spans must lie; None: it is not there yet.

    Raises:
        SpecError: there is no such column, or what stands in it is no weight; the prompt is named.
    """
    where = f"data: prompt '{prompt.id}' of D"
    weight, spans = 1.0, list[WeightedSpan]()
    if not columns:
        return weight, ()
    if "weight" in columns:
        weight = _weight(_value(prompt, columns, "weight", where), f"{where}: '{columns['weight']}'")
    if "spans" in columns:
        given = _value(prompt, columns, "spans", where)
        if isinstance(given, str):  # CSV holds text alone
            try:
                given = json.loads(given)
            except (ValueError, RecursionError):
                given = None
        if not isinstance(given, list):
            raise SpecError(f"{where}: '{columns['spans']}' must be a list of [start, end, weight]")
        for place, span in enumerate(given):
            spans.append(_span(span, f"{where}: '{columns['spans']}[{place}]'", completion))
    return weight, tuple(spans)


def weights_json(weight: float, spans: Sequence[WeightedSpan]) -> dict[str, Any]:
    """Weights as a line of chat JSONL has them: nothing where everything weighs 1."""
    found: dict[str, Any] = {} if weight == 1.0 else {"weight": weight}
    return found | ({"spans": [[span.start, span.end, span.weight] for span in spans]} if spans else {})


def _value(prompt: Prompt, columns: Mapping[str, str], what: str, where: str) -> Any:
    column = columns[what]
    if column not in prompt.payload:
        there = ", ".join(prompt.payload) or "nothing besides the prompt"
        raise SpecError(f"{where} has no '{column}', which data.{what} names (it has {there})")
    return prompt.payload[column]


def _weight(value: Any, where: str) -> float:
    try:
        weight = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        weight = math.nan
    if not math.isfinite(weight) or weight < 0:
        raise SpecError(f"{where} must be a number that is not below 0, but it is {value!r}"[:300])
    return weight


def _span(value: Any, where: str, completion: str | None) -> WeightedSpan:
    parts = [value.get(key) for key in ("start", "end", "weight")] if isinstance(value, Mapping) else value
    if not isinstance(parts, list) or len(parts) != 3:
        raise SpecError(f"{where} must be [start, end, weight], but it is {value!r}"[:300])
    start, end, weight = parts
    if any(isinstance(one, bool) or not isinstance(one, int) for one in (start, end)) or not 0 <= start < end:
        raise SpecError(f"{where} must begin before it ends, in characters from 0 on, but it is {value!r}"[:300])
    if completion is not None and end > len(completion):
        raise SpecError(f"{where} ends at {end}, but the completion has {len(completion)} characters")
    return WeightedSpan(start, end, _weight(weight, where))
