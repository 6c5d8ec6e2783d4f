"""One arm of a resampled grid: its rows and columns, which of its cells are done, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windowshift.core.contract.conditions import NO_PREFIX
from windowshift.core.contract.records import BASE
from windowshift.core.measure.grid import Grid
from windowshift.core.measure.resampled import Key, Resampled


class ArmAxes:
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
        self._partner: ArmAxes | None = None
        self._steps = {(cell.generate, cell.train): cell.step for cell in tuned if cell.final}
        self._supports: dict[tuple[object, ...], Support] = {}
        self._parts: dict[tuple[str, str], list[int]] = {}
        for number, source in enumerate(grid.sources):
            if source.arm == name:
                self._parts.setdefault((source.generate, source.train), []).append(number)

    def beside(self, partner: ArmAxes, evaluates: tuple[str, ...]) -> ArmAxes:
        """The same arm over some of its eval conditions, put beside another one's: over prompts that both have."""
        found = copy(self)
        found.evaluates, found._partner, found._supports = evaluates, partner, {}
        return found

    def column(self, generate: str, train: str, evaluate: str, seed: int | None) -> int | None:
        """The column of a final cell, or of a base cell, where it is done and something was scored; else None."""
        found = self._planned(generate, train, evaluate, seed)
        return found if self.resampled.done(found) else None

    def _planned(self, generate: str, train: str, evaluate: str, seed: int | None) -> int | None:
        if train == BASE:
            return self.resampled.base(self.name, evaluate, seed)
        step = self._steps.get((generate, train), 0)
        return self.resampled.column.get(Key(self.name, generate, train, evaluate, seed, step, True))

    # -- why a cell has no column ---------------------------------------------------------------

    def lacking(self, generate: str, train: str, evaluate: str, seed: int | None) -> str:
        """Why there is no column of a cell: it is not done, or nothing in it was scored; empty where there is one."""
        found = self._planned(generate, train, evaluate, seed)
        cell = f"the cell under {evaluate}" if train != BASE else f"the base model's cell under {evaluate}"
        if found is None:
            return f"{cell} is not planned"
        if not self.resampled.ended(found):
            return f"{cell} is not done"
        return "" if self.resampled.done(found) else f"{cell} is done and has no score"

    def lacking_of(self, generate: str, train: str, evaluates: Sequence[str], seed: int | None) -> str:
        """The same of several cells of a row, which a measure needs all of: how many are done, and scored."""
        planned = [self._planned(generate, train, evaluate, seed) for evaluate in evaluates]
        ended = [column for column in planned if column is not None and self.resampled.ended(column)]
        bare = sum(not self.resampled.done(column) for column in ended)
        cells = "eval cells" if train != BASE else "cells of the base model"
        if len(ended) < len(planned):
            left = f", {bare} of them without a score" if bare else ""
            return f"{len(ended)} of {len(planned)} {cells} done{left}"
        return f"{bare} of {len(planned)} {cells}, all done, without a score" if bare else ""

    def parts(self, generate: str, train: str, seed: int | None) -> list[int]:
        """The numbers of the sources of a row's D."""
        parts = self._parts.get((generate, train), [])
        return [part for part in parts if seed is None or self.resampled.grid.sources[part].seed == seed]

    # -- what cells have in common --------------------------------------------------------------

    def support(self, generate: str, seed: int | None, evaluates: tuple[str, ...]) -> Support:
        """What all done cells of a generation condition have, base cells included, under some eval conditions."""
        return self._supported(
            ("cells", generate, seed, evaluates), lambda: self._side_by_side(generate, seed, evaluates)
        )

    def _side_by_side(self, generate: str, seed: int | None, evaluates: tuple[str, ...]) -> list[int | None]:
        rows = [BASE, *(train for source, train in sorted(self.rows) if source == generate)]
        found = [self.column(generate, row, evaluate, seed) for row in rows for evaluate in evaluates]
        other = self._partner
        if other is not None and evaluates == self.evaluates:
            found += other._side_by_side(generate, seed, other.evaluates)
        return found

    def support_of_base(self, seed: int | None) -> Support:
        """What the base model's cells under all train conditions of the arm have."""
        return self._supported(
            ("base", seed),
            lambda: [
                self.resampled.reference(self.name, part, seed)
                for row in sorted(self.rows)
                for part in self.parts(*row, seed)
            ],
        )

    def _supported(self, name: tuple[object, ...], columns: Callable[[], Iterable[int | None]]) -> Support:
        if name not in self._supports:
            done = {column for column in columns() if column is not None}
            self._supports[name] = Support.of_columns(self.resampled, sorted(done))
        return self._supports[name]


LEAST_SHARE = 0.5
"""A cell that lacks more of the prompts than this is not put beside others."""


@dataclass(frozen=True, slots=True, eq=False)
class Support:
    """The prompts that cells have in common which are put side by side.

    Attributes:
        prompts: whether each prompt is among them, (prompts,); None: every cell has the same ones.
        count: how many they are.
        of: how many one of the cells has at most.
        short: why each cell is left out that has less than half of those, by column.
    """

    prompts: NDArray[np.bool_] | None
    count: int
    of: int
    short: Mapping[int, str]

    @classmethod
    def of_columns(cls, resampled: Resampled, columns: Sequence[int]) -> Support:
        """Of some columns."""
        has = resampled.counts[list(columns)] > 0
        if not len(has):
            return cls(None, 0, 0, {})
        each = has.sum(axis=1)
        short = each < LEAST_SHARE * each.max()
        shared, some = has[~short].all(axis=0), has[~short].any(axis=0)
        reasons = {
            column: f"{count} of {each.max()} prompts have a score under {resampled.conditions[column]}, too few to be "
            "put beside other cells"
            for column, count, left_out in zip(columns, each, short, strict=True)
            if left_out
        }
        return cls(None if (shared == some).all() else shared, int(shared.sum()), int(some.sum()), reasons)

    def reason(self, columns: Iterable[int | None]) -> str:
        """Why some columns cannot be put side by side; nothing where they can."""
        return next((self.short[one] for one in columns if one is not None and one in self.short), "")


def _ordered(grid: Grid, part: str, names: Iterable[str]) -> tuple[str, ...]:
    """Names in the order of the spec's conditions; others (mixes of generation conditions) after them."""
    found = dict.fromkeys(names)
    known = [entry["name"] for entry in grid.experiment.conditions.get(part, [])]
    return tuple(dict.fromkeys([*(name for name in known if name in found), *found]))
