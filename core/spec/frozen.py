"""Freezing a selection into the text of a spec, before what was chosen is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from windowshift.core.spec.selection_section import selection_hash


def frozen(
    text: str, by: str, generate: str, prompts: int, scores: Mapping[str, float], chosen: Sequence[str],
    marked: Sequence[str],
) -> str:  # fmt: skip
    """A spec of the chosen train conditions, with the selection and its hash.

    What was no candidate (the training without a prefix, mixes, stages) stays. Numbers are written to six digits.
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
    conditions["train"] = [one for one in conditions["train"] if _stays(one, scores, chosen)]
    data = {**data, "conditions": conditions, "selection": entry}
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def _stays(entry: Any, scores: Mapping[str, float], chosen: Sequence[str]) -> bool:
    name = entry.get("name") if isinstance(entry, Mapping) else entry
    return name not in scores or name in chosen
