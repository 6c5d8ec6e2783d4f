"""A grid under the bootstrap: means and uplifts of all its cells, with their intervals and joint draws."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from windowshift.core.contract.confidence import paired_rate_ends
from windowshift.core.contract.records import BASE, CellRow
from windowshift.core.contract.stats import (
    DATA,
    HALVES,
    RESAMPLES,
    Floats,
    Means,
    PairedMeans,
    intervals,
    sampled_means,
)
from windowshift.core.measure.grid import Grid, Tally
from windowshift.core.measure.phrase_shifts import phrase_shifts, shifted


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

    Means, numbers of scores and of prompts are (columns,), draws (resamples, columns).
    """

    means: Floats
    base_means: Floats
    samples: Floats
    base_samples: Floats
    n: Floats
    base_n: Floats
    prompts: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """Every column against its base: values and their intervals over prompts (columns,), draws (resamples, columns)."""

    values: Floats
    low: Floats
    high: Floats
    draws: Floats


class Resampled:
    """Means (columns,) of a grid's cells, their intervals over prompts, and joint draws (resamples, columns).

    A cell counts once it is done: short completions come first, so that the mean of those that are there already
    would be another number. The columns of all others have n 0 and no mean.

    One joint bootstrap: eval prompts are resampled once for all cells, base included, and D's prompts
    once, independently. With several seeds each seed's cell has a column and all of them together one: `runs` has the
    columns of the training runs behind such a one. `low` and `high` are of a mean with its phrases as they are;
    `samples`, which comparisons are made of, are moved by the chance of phrases too.
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
        self.runs: dict[int, tuple[int, ...]] = {}
        for key, numbers in groups.items():
            for number in numbers:
                self.column[_of_seed(key, grid.cells[number].seed)] = number
            self.column[key] = numbers[0] if len(numbers) == 1 else len(self.members)
            if len(numbers) > 1:
                if key.train != BASE:
                    self.runs[len(self.members)] = tuple(numbers)
                self.members.append(tuple(numbers))
        pooled = self.members[single:]
        self.sums = np.vstack([grid.sums, *(grid.sums[list(m)].sum(axis=0) for m in pooled)])
        self.counts = np.vstack([grid.counts, *(grid.counts[list(m)].sum(axis=0) for m in pooled)])
        self.asked: Floats | None = None
        if grid.asked is not None:
            self.asked = np.vstack([grid.asked, *(grid.asked[list(m)].sum(axis=0) for m in pooled)])
        waiting = [column for column in range(len(self.members)) if not self.ended(column)]
        self.sums[waiting] = self.counts[waiting] = 0.0
        found = sampled_means(self.scale, self.sums, self.counts, resamples, seed)
        self.n, self.prompts, self.means = found.n, found.prompts, found.values
        self.low, self.high, self.samples = found.low, found.high, found.draws
        self.arms = list(dict.fromkeys(cell.arm for cell in grid.cells))
        self._shift_by_phrases()

    def _shift_by_phrases(self) -> None:
        """Let the chance of phrases move the draws."""
        grid = self.grid
        self.conditions = [cell.evaluate for cell in grid.cells]
        trained = {source.reference: source.part_train for source in grid.sources}
        self.conditions += [trained.get(job, "") for job, _ in grid.references]
        self.conditions += [grid.cells[members[0]].evaluate for members in self.members[len(self.conditions) :]]
        self.shifts: dict[str, Floats] = {}
        if grid.phrases is None:
            return
        under: dict[str, list[int]] = {}
        for row in range(len(grid.cells) + len(grid.references)):
            under.setdefault(self.conditions[row], []).append(row)
        self.shifts = phrase_shifts(self.scale, under, self.sums, self.counts, grid.phrases, *self._bootstrap)
        columns: dict[str, list[int]] = {}
        for column, name in enumerate(self.conditions):
            columns.setdefault(name, []).append(column)
        for name, shift in self.shifts.items():
            for column in columns[name]:
                self.samples[:, column] = shifted(self.scale, self.samples[:, column : column + 1], shift)[:, 0]

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

    def ended(self, column: int) -> bool:
        """Whether every cell behind a column is done, with scores or without any."""
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

    @property
    def seed(self) -> int:
        """The seed of the bootstrap."""
        return self._bootstrap[1]

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
        means, samples, n, prompts = self.means.copy(), self.samples, self.n.copy(), self.prompts.copy()
        base_means, base_n = np.full_like(means, np.nan), np.zeros_like(n)
        base_samples = np.full_like(samples, np.nan)
        plain, differing = self._pairs
        base_means[plain], base_n[plain] = self.means[self.bases[plain]], self.n[self.bases[plain]]
        base_samples[:, plain] = self.samples[:, self.bases[plain]]
        if len(differing):
            k, rows = len(differing), [*differing, *self.bases[differing]]
            has = self.counts > 0
            found = self._over(rows, np.tile(has[differing] & has[self.bases[differing]], (2, 1)))
            samples = samples.copy()
            samples[:, differing], base_samples[:, differing] = found.draws[:, :k], found.draws[:, k:]
            means[differing], base_means[differing] = found.values[:k], found.values[k:]
            n[differing], base_n[differing] = found.n[:k], found.n[k:]
            prompts[differing] = found.prompts[:k]
        return Paired(means, base_means, samples, base_samples, n, base_n, prompts)

    @cached_property
    def _pairs(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The columns that have scores of the same prompts as their base, and those that have not."""
        has = self.counts > 0
        which = np.flatnonzero((self.bases >= 0) & (self.n > 0))
        same = (has[which] == has[self.bases[which]]).all(axis=1)
        return which[same], which[~same]

    def over(self, columns: Sequence[int], prompts: NDArray[np.bool_] | None = None) -> Means:
        """Some columns over some prompts alone (None: those that each has), draws moved by phrases."""
        chosen = list(columns)
        if prompts is None or not (self.counts[chosen][:, ~prompts] > 0).any():
            return Means(
                self.means[chosen],
                self.low[chosen],
                self.high[chosen],
                self.samples[:, chosen],
                self.n[chosen],
                self.prompts[chosen],
            )
        return self._over(chosen, prompts)

    def _over(self, columns: Sequence[int], prompts: NDArray[np.bool_]) -> Means:
        """As `over`, worked out anew; prompts of all columns, or of each, (columns, prompts)."""
        sums, counts = (np.where(prompts, table[columns], 0.0) for table in (self.sums, self.counts))
        found = sampled_means(self.scale, sums, counts, *self._bootstrap, rows=columns)
        for place, column in enumerate(columns):
            shift = self.shifts.get(self.conditions[column])
            if shift is not None:
                found.draws[:, place] = shifted(self.scale, found.draws[:, place : place + 1], shift)[:, 0]
        return found

    @cached_property
    def half(self) -> NDArray[np.bool_]:
        """One half of the eval prompts, always the same one: what is chosen on it is measured on the other."""
        prompts = self.counts.shape[1]
        found = np.zeros(prompts, dtype=np.bool_)
        found[np.random.default_rng([self._bootstrap[1], HALVES]).permutation(prompts)[: prompts // 2]] = True
        return found

    def compared(self, column: int, other: int, among: NDArray[np.bool_] | None = None) -> PairedMeans:
        """Two columns over the prompts that both have scores for, of all or of some."""
        has: NDArray[np.bool_] = np.all(self.counts[[column, other]] > 0, axis=0)
        has = has if among is None else has & among
        sums, counts = (np.where(has, table[[column, other]], 0.0) for table in (self.sums, self.counts))
        return PairedMeans(sums, counts, *self._bootstrap, known=self.over([column, other], has))

    @cached_property
    def uplifts(self) -> Changes:
        """Each cell against its base on the link scale."""
        p = self.paired
        values = self.scale.linked(p.means, p.n, p.base_means, p.base_n)
        draws = self.scale.linked(p.samples, np.inf, p.base_samples, np.inf)
        return self._changes(values, draws, link=True)

    @cached_property
    def effects(self) -> Changes:
        """Each cell against its base as it is shown: as `uplifts`, but for rates the difference."""
        if not self.scale.words.two:
            return self.uplifts
        p = self.paired
        values, draws = np.subtract(p.means, p.base_means), np.subtract(p.samples, p.base_samples)
        return self._changes(values, draws, link=False)

    def _changes(self, values: Floats, draws: Floats, *, link: bool) -> Changes:
        if self.scale.kind != "rate":
            low, high = intervals(draws)
            return Changes(values, np.minimum(low, values), np.maximum(high, values), draws)
        low, high = np.full(len(values), np.nan), np.full(len(values), np.nan)
        which = np.flatnonzero(np.isfinite(values) & (self.bases >= 0) & (self.paired.prompts >= 2))
        both = (self.counts[which] > 0) & (self.counts[self.bases[which]] > 0)
        sums, counts, base_sums, base_counts = (
            np.where(both, table[rows], 0.0)
            for rows in (which, self.bases[which])
            for table in (self.sums, self.counts)
        )
        low[which], high[which] = paired_rate_ends(
            (sums, counts), (base_sums, base_counts), self.scale if link else None
        )
        return Changes(values, np.minimum(low, values), np.maximum(high, values), draws)

    # -- datasets -------------------------------------------------------------------------------

    @cached_property
    def _datasets(self) -> dict[tuple[int, ...], Means]:
        return {}

    def dataset(self, parts: Sequence[int]) -> Means | None:
        """The mean score of D over its parts (numbers of `grid.sources`), as one row; None while one is missing."""
        sources = self.grid.sources
        # Two seeds may share a dataset: its rows count once.
        once = {(sources[p].job, sources[p].first, sources[p].last): p for p in parts}
        chosen = tuple(once.values())
        if not chosen or not all(self.grid.data_done[part] for part in chosen):
            return None
        if chosen not in self._datasets:
            sums = self.grid.data_sums[list(chosen)].sum(axis=0, keepdims=True)
            counts = self.grid.data_counts[list(chosen)].sum(axis=0, keepdims=True)
            found = sampled_means(self.scale, sums, counts, *self._bootstrap, stream=DATA)
            self._datasets[chosen] = found
        found = self._datasets[chosen]
        return found if np.isfinite(found.values[0]) else None

    def lacking_data(self, parts: Sequence[int]) -> str:
        """Why D, of these parts, has no mean."""
        if not parts:
            return "there is no D"
        ended = all(self.grid.data_done[part] for part in parts)
        return "D is done and has no score" if ended else "D is not done"

    def lacking_base(self, arm: str, parts: Iterable[int], seed: int | None) -> str:
        """Why the base model has no mean under the train conditions of D's parts; empty where it has one."""
        for part in parts:
            column, cell = self._reference(arm, part, seed), "the base model's cell under the train condition"
            if column is None or not self.ended(column):
                return f"{cell} {self.grid.sources[part].part_train} is not done"
            if not self.done(column):
                return f"{cell} {self.grid.sources[part].part_train} is done and has no score"
        return ""

    def data_shift(self, parts: Sequence[int]) -> Floats | None:
        """How the phrases that D was written under move its mean, on the link scale; None where none do."""
        names = {self.grid.sources[part].part_generate for part in parts}
        return self.shifts.get(next(iter(names))) if len(names) == 1 else None

    def base_under(
        self, arm: str, parts: Iterable[int], seed: int | None, prompts: NDArray[np.bool_] | None = None
    ) -> tuple[float, Floats, float, int] | None:
        """The base model's mean under the train conditions of D's parts, weighted by their fractions.

        Returns:
            Value, draws, eval completions and prompts; None where a base cell is not done.
        """
        chosen = list(parts)
        columns = [self.reference(arm, part, seed) for part in chosen]
        weights = np.array([self.grid.sources[part].fraction for part in chosen])
        if not chosen or not weights.sum() or any(column is None for column in columns):
            return None
        found = self.over([column for column in columns if column is not None], prompts)
        weights /= weights.sum()
        n, answered = float(found.n.min()), int(found.prompts.min())
        return float(weights @ found.values), found.draws @ weights, n, answered

    def reference(self, arm: str, part: int, seed: int | None) -> int | None:
        """The column of the base model under the train condition of a part of D; None where it is not done."""
        column = self._reference(arm, part, seed)
        return column if self.done(column) else None

    def _reference(self, arm: str, part: int, seed: int | None) -> int | None:
        source = self.grid.sources[part]
        own = source.reference is None
        return self.base(arm, source.part_train, seed) if own else self._of_job.get(source.reference or 0)


def _of_seed(key: Key, seed: int) -> Key:
    return Key(key.arm, key.generate, key.train, key.evaluate, seed, key.step, key.final)
