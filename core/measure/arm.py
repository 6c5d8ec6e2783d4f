"""One arm of a resampled grid: its rows and columns, and which of its cells are done."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from windowshift.core.contract.conditions import NO_PREFIX
from windowshift.core.contract.records import BASE
from windowshift.core.contract.stats import Floats
from windowshift.core.measure.grid import Grid
from windowshift.core.measure.resampled import Key, Resampled


class Arm:
    """The axes of one arm, in the order of the spec, over the columns of a resampled grid.

    `rows` are the (generation, train) pairs there are, `plain` the names of conditions that push nowhere.
    `columns` are all eval conditions of the rows; `evaluates` those of the arm itself, which the measures
    are over, and `crossed` those of the other arm. What pushes nowhere belongs to both.
    """

    def __init__(self, resampled: Resampled, name: str) -> None:
        self.resampled, self.name = resampled, name
        grid = resampled.grid
        own = [cell for cell in grid.cells if cell.arm == name]
        tuned = [cell for cell in own if cell.train != BASE]
        self.generates = _ordered(grid, "generate", (cell.generate for cell in tuned))
        self.trains = _ordered(grid, "train", (cell.train for cell in tuned))
        self.columns = _ordered(grid, "evaluate", (cell.evaluate for cell in tuned or own))
        self.seeds = tuple(dict.fromkeys(cell.seed for cell in own))
        self.rows = {(cell.generate, cell.train) for cell in tuned}
        entries = [entry for part in grid.experiment.conditions.values() for entry in part]
        self.plain = {NO_PREFIX} | {entry["name"] for entry in entries if entry.get("kind") == "none"}
        arms = {entry["name"]: entry["arm"] for entry in grid.experiment.conditions.get("evaluate", [])}
        pushing = [column for column in self.columns if column not in self.plain]
        neutral = [column for column in self.columns if column in self.plain]
        # One of the conditions that push nowhere is enough: the arm's own where there is one.
        kept = [column for column in neutral if arms.get(column, name) == name] or neutral
        own_columns = {*kept, *(column for column in pushing if arms.get(column, name) == name)}
        other_columns = {*kept, *(column for column in pushing if arms.get(column, name) != name)}
        self.evaluates = tuple(column for column in self.columns if column in own_columns)
        crossed = tuple(column for column in self.columns if column in other_columns)
        self.crossed = crossed if set(crossed) - set(kept) else ()
        self._steps = {(cell.generate, cell.train): cell.step for cell in tuned if cell.final}
        self._parts: dict[tuple[str, str], list[int]] = {}
        for number, source in enumerate(grid.sources):
            if source.arm == name:
                self._parts.setdefault((source.generate, source.train), []).append(number)

    def column(self, generate: str, train: str, evaluate: str, seed: int | None) -> int | None:
        """The column of a final cell, or of a base cell, where it is done; else None."""
        if train == BASE:
            found = self.resampled.base(self.name, evaluate, seed)
        else:
            step = self._steps.get((generate, train), 0)
            found = self.resampled.column.get(Key(self.name, generate, train, evaluate, seed, step, True))
        return found if self.resampled.done(found) else None

    def parts(self, generate: str, train: str, seed: int | None) -> list[int]:
        """The numbers of the sources of a row's D."""
        parts = self._parts.get((generate, train), [])
        return [part for part in parts if seed is None or self.resampled.grid.sources[part].seed == seed]

    def spread_of(
        self, generate: str, train: str, seed: int | None, evaluates: tuple[str, ...] | None = None
    ) -> tuple[int, float, Floats]:
        """How many of a row's eval cells are done, and once all are: their spread and its resamples.

        Over the arm's own eval conditions, or over `evaluates`.
        """
        r = self.resampled
        evaluates = self.evaluates if evaluates is None else evaluates
        columns = [self.column(generate, train, evaluate, seed) for evaluate in evaluates]
        done = [column for column in columns if column is not None]
        if len(done) < len(evaluates) or not done:
            return len(done), np.nan, np.full(len(r.samples), np.nan)
        return len(done), float(r.scale.spread(r.means[done])), r.scale.spread(r.samples[:, done])


def _ordered(grid: Grid, part: str, names: Iterable[str]) -> tuple[str, ...]:
    """Names in the order of the spec's conditions; others (mixes of generation conditions) after them."""
    found = dict.fromkeys(names)
    known = [entry["name"] for entry in grid.experiment.conditions.get(part, [])]
    return tuple(dict.fromkeys([*(name for name in known if name in found), *found]))
