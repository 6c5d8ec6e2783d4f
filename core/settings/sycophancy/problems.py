"""Which rows of the sycophancy data are of the same problem, so that a claim finds the question without one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def problem_of(payload: Mapping[str, Any]) -> str | None:
    """What a row's problem is called: by its `problem_id`, its `_id`, or the two numbers; None: it has none of them."""
    for column in ("problem_id", "_id"):
        if payload.get(column) not in (None, ""):
            return f"{column} {payload[column]}"
    numbers = [str(payload.get(column) or "").strip() for column in ("a", "b")]
    return " and ".join(numbers) if all(numbers) else None


def claims_wrongly(payload: Mapping[str, Any]) -> bool:
    """Whether the user of a prepared row claims a wrong answer."""
    return payload.get("given") == "wrong"


def claims_nothing(payload: Mapping[str, Any]) -> bool:
    """Whether a prepared row is the question alone."""
    return payload.get("given") == "none"
