"""The eval conditions of a grid page: the arm's own first, then the other arm's, each under what they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from windowshift.core.contract.records import ExperimentRow


@dataclass(frozen=True, slots=True)
class ColumnHead:
    """An eval condition as a head: `leaf` stands under `band`, which its neighbours share.

    `crossed` says that it belongs to the other arm: measures of a row leave such cells out.
    """

    name: str
    band: str
    leaf: str
    crossed: bool


def column_heads(experiment: ExperimentRow, arm: str, names: Iterable[str]) -> tuple[ColumnHead, ...]:
    """Return heads for a page's conditions in their order, the arm's own first.

    A condition that pushes nowhere belongs to both arms, unless the arm has such a one of its own.
    """
    wanted = list(names)
    entries = {str(entry.get("name")): entry for entry in experiment.conditions.get("evaluate", [])}
    own = {name for name in wanted if entries.get(name, {}).get("arm", arm) == arm}
    plain = {name for name in wanted if entries.get(name, {}).get("kind") == "none"}
    if not own & plain:
        own |= plain
    heads = [_head(name, entries.get(name, {}), name not in own) for name in wanted]
    return tuple(sorted(heads, key=lambda head: head.crossed))


def _head(name: str, entry: Mapping[str, Any], crossed: bool) -> ColumnHead:
    band, leaf = _parted(name, entry)
    return ColumnHead(name, band or ("prefix" if crossed else ""), leaf, crossed)


def _parted(name: str, entry: Mapping[str, Any]) -> tuple[str, str]:
    """Split a dose's name, unless the spec gave it one of its own: `length=short` is `short` under `length =`."""
    vector = "&".join(entry.get("vectors", ()))
    rest = name.removeprefix(vector)
    if not vector or rest in ("", name):
        return "", name
    if entry.get("match") and rest.startswith("="):
        return f"{vector} =", rest[1:]
    if entry.get("iso_kl") and rest.startswith(":kl"):
        return f"{vector} KL", rest[3:]
    return vector, rest
