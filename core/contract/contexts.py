"""Contexts of API models: the table in ``assets/contexts.yaml``."""

from __future__ import annotations

from functools import cache

import yaml

from windowshift.core.contract.assets import asset
from windowshift.core.contract.prices import without_date


def context_of(host: str, model: str) -> int | None:
    """Tokens of prompt and completion together, of a model of a host; None: it is not known."""
    table = _table().get(host, {})
    return table.get(model) or table.get(without_date(model))


@cache
def _table() -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = yaml.safe_load(asset("contexts.yaml").read_text(encoding="utf-8"))
    return found
