"""Pinned cells: the rows that are compared, and the cell that others are shown against."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from windowshift.core.contract.records import BASE
from windowshift.tui.read.snapshot import CellKey

MOST = 4
"""Rows side by side that a screen can hold."""

Variant = tuple[str, str, str]
"""(arm, generation condition, train condition): what `core.comparison` compares."""


def variant(key: CellKey) -> Variant:
    """Return the row of a cell."""
    return key.arm, key.generate, key.train


@dataclass(slots=True)
class Pins:
    """The pinned cells of every experiment, one a row, in the order of pinning."""

    by_experiment: dict[str, list[CellKey]] = field(default_factory=dict)

    def of(self, experiment: str) -> tuple[CellKey, ...]:
        """Return an experiment's pinned cells."""
        return tuple(self.by_experiment.get(experiment, ()))

    def number(self, experiment: str, row: Variant) -> int | None:
        """Return the number, from 1, under which a row is pinned."""
        rows = [variant(key) for key in self.of(experiment)]
        return rows.index(row) + 1 if row in rows else None

    def against(self, experiment: str, key: CellKey) -> CellKey | None:
        """Return the cell pinned last, to show beside another one; None where there is no other."""
        others = [pinned for pinned in self.of(experiment) if pinned != key]
        return others[-1] if others else None

    def toggle(self, experiment: str, key: CellKey) -> str:
        """Pin a cell's row, move its pin to this cell, or take it away; return what happened."""
        pinned = self.by_experiment.setdefault(experiment, [])
        if key.train == BASE:
            return "The base model needs no pin: everything is shown against it."
        if key in pinned:
            pinned.remove(key)
            return f"{key.train} is no longer pinned."
        number = self.number(experiment, variant(key))
        if number is not None:
            pinned[number - 1] = key
            return f"Pin {number} moved to {key.train} → {key.evaluate}."
        if len(pinned) >= MOST:
            return f"{MOST} rows are pinned: space on one of them, or u, takes a pin away."
        pinned.append(key)
        more = "c compares" if len(pinned) > 1 else "pin another one, then c compares"
        return f"Pinned {key.train} as {len(pinned)}: {more}."

    def replace(self, experiment: str, keys: Iterable[CellKey]) -> None:
        """Pin these cells in place of what was pinned."""
        self.by_experiment[experiment] = list(keys)

    def clear(self, experiment: str) -> None:
        """Take all pins of an experiment away."""
        self.by_experiment.pop(experiment, None)

    def turn(self, experiment: str) -> None:
        """Turn the order round."""
        self.by_experiment.get(experiment, []).reverse()
