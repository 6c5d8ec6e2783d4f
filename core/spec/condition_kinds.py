"""The kinds of conditions that a spec can write inline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from windowshift.core.contract.conditions import Condition, read_prefix
from windowshift.core.spec.dose import read_steering

KINDS: dict[str, Callable[[Mapping[str, Any], str], list[Condition]]] = {
    "phrases": read_prefix,
    "steer": read_steering,
}
"""Readers of inline conditions, by the key that marks the kind in a spec."""
