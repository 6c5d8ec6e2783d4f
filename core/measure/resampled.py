"""A grid under the bootstrap: means and uplifts of all its cells under the same resamples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from windowshift.core.contract.records import BASE, CellRow
from windowshift.core.contract.stats import DATA, RESAMPLES, Floats, log2, plain_means, resampled_means
from windowshift.core.measure.grid import Grid, Tally

Scale = Literal["log2", "log_odds", "difference"]


@dataclass(frozen=True, slots=True)
class Key:
    """A cell of the measures; `seed` None pools the completions of all seeds."""

    arm: str
    generate: str
    train: str
    evaluate: str
    seed: int | None
    step: int
    final: bool


def on_scale(means: Floats, n: Floats | float, scale: Scale) -> Floats:
    """Put means of `n` scores on the scale on which cells are subtracted.

    Log-odds add half a success and half a failure (Haldane 1956, Anscombe 1956), so that 0 of n and
    n of n stay finite.
    """
    if scale == "log2":
        return log2(means)
    if scale == "difference":
        return means
    return np.log((means * n + 0.5) / ((1 - means) * n + 0.5))


class Resampled:
    """Means (columns,) and their resamples (resamples, columns) of a grid's cells.

    One joint bootstrap: eval prompts are resampled once for all cells, base included, and D's prompts
    once, independently. With several seeds each seed's cell has a column and all of them together one.
    """

    def __init__(self, grid: Grid, resamples: int = RESAMPLES, seed: int = 0) -> None:
        self.grid = grid
        self.scale: Scale = grid.behaviour.scale.link
        self._bootstrap = (resamples, seed)
        groups: dict[Key, list[int]] = {}
        for number, cell in enumerate(grid.cells):
            key = Key(cell.arm, cell.generate, cell.train, cell.evaluate, None, cell.step, cell.final)
            groups.setdefault(key, []).append(number)
        single = len(grid.cells) + len(grid.references)
        self.members: list[tuple[int, ...]] = [(number,) for number in range(single)]
        self._of_job = {cell.job: number for number, cell in enumerate(grid.cells)}
        self._of_job |= {job: len(grid.cells) + k for k, (job, _) in enumerate(grid.references)}
        self.column: dict[Key, int] = {}
        for key, numbers in groups.items():
            for number in numbers:
                self.column[_of_seed(key, grid.cells[number].seed)] = number
            self.column[key] = numbers[0] if len(numbers) == 1 else len(self.members)
            if len(numbers) > 1:
                self.members.append(tuple(numbers))
        pooled = self.members[single:]
        self.sums = np.vstack([grid.sums, *(grid.sums[list(m)].sum(axis=0) for m in pooled)])
        self.counts = np.vstack([grid.counts, *(grid.counts[list(m)].sum(axis=0) for m in pooled)])
        self.n = self.counts.sum(axis=1)
        self.means = plain_means(self.sums, self.counts)
        self.samples = resampled_means(self.sums, self.counts, resamples, seed)
        self.arms = list(dict.fromkeys(cell.arm for cell in grid.cells))

    # -- cells ----------------------------------------------------------------------------------

    def cells(self, column: int) -> list[CellRow]:
        """The cells of the store behind a column."""
        return [self.grid.cells[number] for number in self.members[column]]

    def tally(self, column: int) -> Tally:
        """The completions behind a column."""
        return sum((self.grid.tallies[number] for number in self.members[column]), Tally(0, 0, 0, 0))

    def done(self, column: int | None) -> bool:
        """Whether every cell behind a column is done and something was scored."""
        if column is None or not self.n[column]:
            return False
        first = len(self.grid.cells)
        if first <= column < first + len(self.grid.references):
            return self.grid.references[column - first][1]
        return all(cell.state == "done" for cell in self.cells(column))

    def base(self, arm: str, evaluate: str, seed: int | None) -> int | None:
        """The base model's column for an eval condition: of the seed and arm where there is one."""
        for tried in (arm, *(other for other in self.arms if other != arm)):
            for wanted in (seed, None):
                found = self.column.get(Key(tried, "", BASE, evaluate, wanted, 0, True))
                if found is not None:
                    return found
        return None

    def scaled(self, means: Floats | float, n: float) -> Floats:
        """Put means of `n` scores on the grid's scale."""
        return on_scale(np.asarray(means, dtype=np.float64), n, self.scale)

    def base_as_trained(self, arm: str, condition: str) -> int | None:
        """The base model's column under a condition: an eval cell, else what a train condition was measured by."""
        found = self.base(arm, condition, None)
        if found is not None:
            return found
        for source in self.grid.sources:
            if source.part_train == condition and source.reference is not None:
                return self._of_job[source.reference]
        return None

    # -- uplifts --------------------------------------------------------------------------------

    @cached_property
    def bases(self) -> NDArray[np.intp]:
        """The base column of each column; -1 for base cells and where there is none."""
        found = np.full(len(self.members), -1, dtype=np.intp)
        for key, column in self.column.items():
            if key.train != BASE:
                base = self.base(key.arm, key.evaluate, key.seed)
                found[column] = -1 if base is None else base
        return found

    @cached_property
    def paired(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Means and base means over the prompts that a cell and its base both have.

        Returns:
            Cell means and base means, (columns,), and their resamples, (resamples, columns). A cell
            still in work is so compared with the base on the prompts it has had.
        """
        means, samples = self.means.copy(), self.samples
        base_means = np.full_like(means, np.nan)
        base_samples = np.full_like(samples, np.nan)
        has = self.counts > 0
        which = np.flatnonzero((self.bases >= 0) & (self.n > 0))
        same = (has[which] == has[self.bases[which]]).all(axis=1)
        plain, differing = which[same], which[~same]
        base_means[plain] = self.means[self.bases[plain]]
        base_samples[:, plain] = self.samples[:, self.bases[plain]]
        if len(differing):
            k = len(differing)
            rows = np.concatenate([differing, self.bases[differing]])
            both = np.tile(has[differing] & has[self.bases[differing]], (2, 1))
            sums, counts = (np.where(both, table[rows], 0.0) for table in (self.sums, self.counts))
            point, drawn = plain_means(sums, counts), resampled_means(sums, counts, *self._bootstrap)
            means[differing], base_means[differing] = point[:k], point[k:]
            samples = samples.copy()
            samples[:, differing], base_samples[:, differing] = drawn[:, :k], drawn[:, k:]
        return means, base_means, samples, base_samples

    def compared(self, column: int, other: int) -> tuple[float, float, Floats, Floats]:
        """Means of two columns over the prompts that both have, and their resamples."""
        has = (self.counts[[column, other]] > 0).all(axis=0)
        sums, counts = (np.where(has, table[[column, other]], 0.0) for table in (self.sums, self.counts))
        if np.array_equal(counts, self.counts[[column, other]]):
            return (
                float(self.means[column]),
                float(self.means[other]),
                self.samples[:, column],
                self.samples[:, other],
            )
        point, drawn = plain_means(sums, counts), resampled_means(sums, counts, *self._bootstrap)
        return float(point[0]), float(point[1]), drawn[:, 0], drawn[:, 1]

    @cached_property
    def uplifts(self) -> tuple[Floats, Floats]:
        """Each cell's uplift over its base on the scale: (columns,) and (resamples, columns)."""
        means, base_means, samples, base_samples = self.paired
        base_n = np.where(self.bases >= 0, self.n[self.bases], 1.0)
        point = on_scale(means, self.n, self.scale) - on_scale(base_means, base_n, self.scale)
        drawn = on_scale(samples, self.n, self.scale) - on_scale(base_samples, base_n, self.scale)
        return point, drawn

    # -- datasets -------------------------------------------------------------------------------

    @cached_property
    def _datasets(self) -> dict[tuple[int, ...], tuple[float, Floats, int]]:
        return {}

    def dataset(self, parts: Sequence[int]) -> tuple[float, Floats, int]:
        """Mean score of D over its parts (numbers of `grid.sources`): value, resamples, completions."""
        sources = self.grid.sources
        # Two seeds may share a dataset: its rows count once.
        once = {(sources[p].job, sources[p].first, sources[p].last): p for p in parts}
        chosen = tuple(once.values())
        if chosen not in self._datasets:
            sums = self.grid.data_sums[list(chosen)].sum(axis=0, keepdims=True)
            counts = self.grid.data_counts[list(chosen)].sum(axis=0, keepdims=True)
            drawn = resampled_means(sums, counts, *self._bootstrap, stream=DATA)[:, 0]
            self._datasets[chosen] = float(plain_means(sums, counts)[0]), drawn, int(counts.sum())
        return self._datasets[chosen]

    def base_under(self, arm: str, parts: Iterable[int], seed: int | None) -> tuple[float, Floats, float] | None:
        """The base model's mean under the train conditions of D's parts, weighted by their fractions.

        Returns:
            Value, resamples, eval completions; None where a base cell is not done.
        """
        total, value, drawn, n = 0.0, 0.0, np.zeros(len(self.samples)), np.inf
        for part in parts:
            source = self.grid.sources[part]
            if source.reference is None:
                column = self.base(arm, source.part_train, seed)
            else:
                column = self._of_job[source.reference]
            if column is None or not self.done(column):
                return None
            total += source.fraction
            value += source.fraction * float(self.means[column])
            drawn = drawn + source.fraction * self.samples[:, column]
            n = min(n, float(self.n[column]))
        return (value / total, drawn / total, n) if total else None


def _of_seed(key: Key, seed: int) -> Key:
    return Key(key.arm, key.generate, key.train, key.evaluate, seed, key.step, key.final)
