"""A grid under the bootstrap: means and uplifts of all its cells under the same resamples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from windowshift.core.contract.records import BASE, CellRow
from windowshift.core.contract.stats import DATA, RESAMPLES, Floats, PairedMeans, plain_means, resampled_means
from windowshift.core.measure.grid import Grid, Tally


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


@dataclass(frozen=True, slots=True, eq=False)
class Paired:
    """Every column and its base over the prompts that both have.

    Means and numbers of scores are (columns,), resamples (resamples, columns).
    """

    means: Floats
    base_means: Floats
    samples: Floats
    base_samples: Floats
    n: Floats
    base_n: Floats


class Resampled:
    """Means (columns,) and their resamples (resamples, columns) of a grid's cells.

    A cell counts once it is done: short completions come first, so that the mean of those that are there already
    would be another number. The columns of all others have n 0 and no mean.

    One joint bootstrap: eval prompts are resampled once for all cells, base included, and D's prompts
    once, independently. With several seeds each seed's cell has a column and all of them together one.
    """

    def __init__(self, grid: Grid, resamples: int = RESAMPLES, seed: int = 0) -> None:
        self.grid = grid
        self.scale = grid.behaviour.scale
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
        waiting = [column for column in range(len(self.members)) if not self._over(column)]
        self.sums[waiting] = self.counts[waiting] = 0.0
        self.n = self.counts.sum(axis=1)
        self.means = plain_means(self.sums, self.counts)
        self.samples = resampled_means(self.sums, self.counts, resamples, seed)
        self.samples[:, (self.counts > 0).sum(axis=1) < 2] = np.nan  # one prompt shows nothing of how prompts differ
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
        return column is not None and bool(self.n[column])

    def _over(self, column: int) -> bool:
        """Whether every cell behind a column is done."""
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
    def paired(self) -> Paired:
        """Means and base means over the prompts that a cell and its base both have scores for."""
        means, samples, n = self.means.copy(), self.samples, self.n.copy()
        base_means, base_n = np.full_like(means, np.nan), np.zeros_like(n)
        base_samples = np.full_like(samples, np.nan)
        has = self.counts > 0
        which = np.flatnonzero((self.bases >= 0) & (self.n > 0))
        same = (has[which] == has[self.bases[which]]).all(axis=1)
        plain, differing = which[same], which[~same]
        base_means[plain], base_n[plain] = self.means[self.bases[plain]], self.n[self.bases[plain]]
        base_samples[:, plain] = self.samples[:, self.bases[plain]]
        if len(differing):
            k = len(differing)
            rows = np.concatenate([differing, self.bases[differing]])
            both = np.tile(has[differing] & has[self.bases[differing]], (2, 1))
            sums, counts = (np.where(both, table[rows], 0.0) for table in (self.sums, self.counts))
            point, drawn = plain_means(sums, counts), resampled_means(sums, counts, *self._bootstrap)
            drawn[:, (counts > 0).sum(axis=1) < 2] = np.nan
            means[differing], base_means[differing] = point[:k], point[k:]
            n[differing], base_n[differing] = counts.sum(axis=1)[:k], counts.sum(axis=1)[k:]
            samples = samples.copy()
            samples[:, differing], base_samples[:, differing] = drawn[:, :k], drawn[:, k:]
        return Paired(means, base_means, samples, base_samples, n, base_n)

    def compared(self, column: int, other: int) -> PairedMeans:
        """Two columns over the prompts that both have scores for."""
        has = (self.counts[[column, other]] > 0).all(axis=0)
        sums, counts = (np.where(has, table[[column, other]], 0.0) for table in (self.sums, self.counts))
        prompts, (n, other_n) = int(has.sum()), counts.sum(axis=1)
        if np.array_equal(counts, self.counts[[column, other]]):
            point, drawn = self.means[[column, other]], self.samples[:, [column, other]]
        else:
            point, drawn = plain_means(sums, counts), resampled_means(sums, counts, *self._bootstrap)
            if prompts < 2:
                drawn[:] = np.nan
        return PairedMeans(
            float(point[0]), float(point[1]), drawn[:, 0], drawn[:, 1], float(n), float(other_n), prompts
        )

    @cached_property
    def uplifts(self) -> tuple[Floats, Floats]:
        """Each cell against its base on the link scale: (columns,) and (resamples, columns)."""
        p = self.paired
        return (
            self.scale.linked(p.means, p.n, p.base_means, p.base_n),
            self.scale.linked(p.samples, p.n, p.base_samples, p.base_n),
        )

    @cached_property
    def effects(self) -> tuple[Floats, Floats]:
        """Each cell against its base as it is shown: as `uplifts`, but for rates the difference."""
        if not self.scale.words.two:
            return self.uplifts
        p = self.paired
        return (
            self.scale.effect(p.means, p.n, p.base_means, p.base_n),
            self.scale.effect(p.samples, p.n, p.base_samples, p.base_n),
        )

    # -- datasets -------------------------------------------------------------------------------

    @cached_property
    def _datasets(self) -> dict[tuple[int, ...], tuple[float, Floats, int]]:
        return {}

    def dataset(self, parts: Sequence[int]) -> tuple[float, Floats, int]:
        """Mean score of D over its parts (numbers of `grid.sources`): value, resamples, completions.

        NaN and 0 completions while a part is not all there.
        """
        sources = self.grid.sources
        # Two seeds may share a dataset: its rows count once.
        once = {(sources[p].job, sources[p].first, sources[p].last): p for p in parts}
        chosen = tuple(once.values())
        if not all(self.grid.data_done[part] for part in chosen):
            return np.nan, np.full(len(self.samples), np.nan), 0
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
