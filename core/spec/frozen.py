"""Freezing a selection into the text of a spec, before what was chosen is trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import yaml

from windowshift.core.spec.dose import WAYS, read_steering
from windowshift.core.spec.selection_section import selection_hash


def frozen(
    text: str, by: str, generate: str, prompts: int, scores: Mapping[str, float], chosen: Sequence[str],
    marked: Sequence[str], out_of_reach: Collection[str] = (),
) -> str:  # fmt: skip
    """A spec of the chosen train conditions, with the selection and its hash.

    What was no candidate (the training without a push, controls, mixes, stages) stays; doses that are out of reach do
    not. Numbers have six digits.
    """
    entry: dict[str, Any] = {
        "by": by,
        "generate": generate,
        "prompts": prompts,
        "scores": {name: round(float(value), 6) for name, value in scores.items()},
        "chosen": list(chosen),
        "marked": list(marked),
    }
    entry["hash"] = selection_hash(entry)
    data: dict[str, Any] = yaml.safe_load(text)
    conditions = dict(data["conditions"])
    left_out = (set(scores) - set(chosen)) | set(out_of_reach)
    conditions["train"] = [stays for one in conditions["train"] if (stays := _without(one, left_out)) is not None]
    data = {**data, "conditions": conditions, "selection": entry}
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def _without(entry: Any, left_out: Collection[str]) -> Any:
    """An entry without the conditions that were not chosen; None where nothing is left of it."""
    if isinstance(entry, Mapping) and "steer" in entry:
        return _doses_without(entry, left_out)
    name = entry.get("name") if isinstance(entry, Mapping) else entry
    return None if name in left_out else entry


def _doses_without(entry: Mapping[str, Any], left_out: Collection[str]) -> Mapping[str, Any] | None:
    """An entry of doses makes one condition of each value: the values of those that stay."""
    names = {condition.name for condition in read_steering(entry, "conditions.train")}
    if not names & set(left_out):
        return entry
    if names <= set(left_out):
        return None
    way = next(key for key in WAYS if entry.get(key) is not None)
    values = entry[way] if isinstance(entry[way], list) else [entry[way]]
    kept = [
        value
        for value in values
        if not {one.name for one in read_steering({**entry, way: [value]}, "conditions.train")} & set(left_out)
    ]
    return {**entry, way: kept}
