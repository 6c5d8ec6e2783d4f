"""The grid of one experiment and behaviour as arrays, loaded from the store in one go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from windowshift.core.contract.records import Behaviour, CellRow, ExperimentRow, SourceRow
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.stats import Floats
from windowshift.core.store.reader import Reader


@dataclass(frozen=True, slots=True)
class Tally:
    """A cell's completions: `n` scored, `truncated` cut off, `missing` a score, `failed` of those.

    The truncated ones are among the n, or among the missing where the behaviour's scale says so.
    """

    n: int
    truncated: int
    missing: int
    failed: int

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.n + other.n,
            self.truncated + other.truncated,
            self.missing + other.missing,
            self.failed + other.failed,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Lengths:
    """The scores of a cell, (n,) each: which prompt they are of, its place in the grid, and whether it was cut off."""

    places: NDArray[np.intp]
    values: Floats
    cut: NDArray[np.bool_]

    @property
    def n(self) -> int:
        """How many scores there are."""
        return len(self.values)


@dataclass(frozen=True, eq=False)
class Grid:
    """Scores by cell and prompt.

    `sums` and `counts` have shape (cells + references, eval prompts): the sum and the number of scores
    that a cell has for a prompt (nearly always one; where the behaviour `counts` instructions, those of the prompt),
    and `tallies` counts the completions of each. References are the base model under train conditions that are no cell
    of the grid: their job numbers, with whether they are done.
    `data_sums` and `data_counts` are the same for the parts of D: (sources, D's prompts); `data_done` says
    whether a part is all there (empty: all are), `data_cut` how many of its completions were cut off. `sds`
    are the cells' sample standard deviations (NaN below two). `phrases` says by which phrase a
    prompt was asked, in the shape of `sums`; 0: by none. None: it is not known. `lengths` has the
    single scores of each cell and reference where a score that was cut off is a lower bound, else nothing. `asked`
    counts their completions in the shape of `counts`, scored or not; None where it is not completions that count.
    """

    experiment: ExperimentRow
    behaviour: Behaviour
    cells: tuple[CellRow, ...]
    tallies: tuple[Tally, ...]
    sds: Floats
    sums: Floats
    counts: Floats
    sources: tuple[SourceRow, ...]
    data_sums: Floats
    data_counts: Floats
    references: tuple[tuple[int, bool], ...] = ()
    data_done: tuple[bool, ...] = ()
    data_cut: tuple[int, ...] = ()
    phrases: Numbers | None = None
    lengths: tuple[Lengths, ...] = ()
    asked: Floats | None = None

    def __post_init__(self) -> None:
        if not self.data_done:
            object.__setattr__(self, "data_done", (True,) * len(self.sources))
        if not self.data_cut:
            object.__setattr__(self, "data_cut", (0,) * len(self.sources))

    def only(self, kept: Callable[[CellRow], bool]) -> Grid:
        """The grid of some of its cells alone, with all of its references and D."""
        cells = [number for number, cell in enumerate(self.cells) if kept(cell)]
        rows = [*cells, *range(len(self.cells), len(self.tallies))]
        return replace(
            self,
            cells=tuple(self.cells[number] for number in cells),
            tallies=tuple(self.tallies[number] for number in rows),
            sds=self.sds[cells],
            sums=self.sums[rows],
            counts=self.counts[rows],
            phrases=None if self.phrases is None else self.phrases[rows],
            lengths=tuple(self.lengths[number] for number in rows) if self.lengths else (),
            asked=None if self.asked is None else self.asked[rows],
        )


Numbers = NDArray[np.int32]
Cut = NDArray[np.bool_]
PromptScores = tuple[NDArray[np.int64], Floats]
"""Prompt numbers and scores (NaN: missing) of some completions."""


def load_grid(reader: Reader, experiment: ExperimentRow, behaviour: Behaviour, *, piloted: int | None = None) -> Grid:
    """Load every score of an experiment's cells and of the datasets behind them.

    Jobs are read one by one, so that memory holds numbers and never completions. With `piloted` the grid is that of a
    pilot: only so many first rows of each cell, and a cell that has them counts as done.
    """
    cells = tuple(reader.cells(experiment.id, behaviour.name))
    # A guard's scores are of other prompts than D's: there is nothing to say of how surprising D is.
    sources = () if behaviour.guard else tuple(reader.sources(experiment.id))
    jobs: dict[int, tuple[PromptScores, Tally, Numbers, Cut]] = {}
    for cell in cells:
        if cell.job not in jobs:
            jobs[cell.job] = _load(reader, cell.job, behaviour, piloted)
    if piloted is not None:
        cells = tuple(_piloted(cell, len(jobs[cell.job][3]), piloted) for cell in cells)
    datasets: dict[int, list[tuple[int, int, float | None, str, int]]] = {}
    parts: list[PromptScores] = []
    data_cut: list[int] = []
    for source in sources:
        if source.job not in datasets:
            datasets[source.job] = reader.phrased_scores(source.job, behaviour.name, weighted=True)
        rows = [row for row in datasets[source.job] if source.first <= row[0] < source.last]
        scored, cut = arrays([row[:4] for row in rows], behaviour.scale)
        parts.append(scored)
        data_cut.append(cut)
    wanted = dict.fromkeys(source.reference for source in sources if source.reference is not None)
    references = [number for number in wanted if number not in jobs]
    loaded = [jobs[cell.job] for cell in cells]
    loaded += [_load(reader, number, behaviour) for number in references]
    done = {number: reader.job(number).state == "done" for number in (*references, *datasets)}
    sums, counts = tabulate([rows for rows, *_ in loaded])
    data_sums, data_counts = tabulate(parts)
    finite = [values[np.isfinite(values)] for (_, values), *_ in loaded]
    bounds = behaviour.scale.truncation == "lower_bound" and not behaviour.counts
    return Grid(
        experiment=experiment,
        behaviour=behaviour,
        cells=cells,
        tallies=tuple(tally for _, tally, *_ in loaded),
        sds=np.array([values.std(ddof=1) if len(values) > 1 else np.nan for values in finite[: len(cells)]]),
        sums=sums,
        counts=counts,
        sources=sources,
        data_sums=data_sums,
        data_counts=data_counts,
        references=tuple((number, done[number]) for number in references),
        data_done=tuple(done[source.job] for source in sources),
        data_cut=tuple(data_cut),
        phrases=_tabulate_phrases([(rows, phrases) for rows, _, phrases, _ in loaded]),
        lengths=_lengths([(rows, cut) for rows, _, _, cut in loaded]) if bounds else (),
        asked=None if behaviour.counts else tabulate([_each(rows) for rows, *_ in loaded])[1],
    )


def _piloted(cell: CellRow, rows: int, wanted: int) -> CellRow:
    """A cell that is done where its first rows are."""
    return replace(cell, state="done") if rows and rows >= min(wanted, cell.total) else cell


def _load(
    reader: Reader, job: int, behaviour: Behaviour, first: int | None = None
) -> tuple[PromptScores, Tally, Numbers, Cut]:
    scores = [row for row in reader.phrased_scores(job, behaviour.name) if first is None or row[0] < first]
    rows, truncated = arrays([row[:4] for row in scores], behaviour.scale)
    n = int(np.isfinite(rows[1]).sum())
    failed = sum(finish == "failed" for _, _, _, finish, _ in scores)
    tally = Tally(n, truncated, len(scores) - n, failed)
    if behaviour.counts:  # what is tallied are completions all the same
        weighted = reader.phrased_scores(job, behaviour.name, weighted=True)
        scores = [row for row in weighted if first is None or row[0] < first]
        rows = arrays([row[:4] for row in scores], behaviour.scale)[0]
    cut = np.fromiter((row[3] == "length" for row in scores), np.bool_, len(scores))
    return rows, tally, _phrases(scores), cut


def _each(rows: PromptScores) -> PromptScores:
    """The same completions as if all of them had a score."""
    return rows[0], np.zeros(len(rows[0]))


def _lengths(parts: Sequence[tuple[PromptScores, Cut]]) -> tuple[Lengths, ...]:
    """The scores of each part, prompts in the order of `tabulate`."""
    numbers = np.unique(np.concatenate([prompts for (prompts, _), _ in parts])) if parts else np.empty(0, np.int64)
    found = []
    for (prompts, values), cut in parts:
        there = np.isfinite(values)
        found.append(Lengths(np.searchsorted(numbers, prompts[there]), values[there], cut[there]))
    return tuple(found)


def _phrases(rows: Sequence[tuple[int, int, float | None, str, int]]) -> Numbers:
    return np.fromiter((row[4] for row in rows), np.int32, len(rows))


def _tabulate_phrases(parts: Sequence[tuple[PromptScores, Numbers]]) -> Numbers:
    """The phrase of each part and prompt, (parts, prompts), prompts in the order of `tabulate`."""
    numbers = np.unique(np.concatenate([prompts for (prompts, _), _ in parts])) if parts else np.empty(0, np.int64)
    found = np.zeros((len(parts), len(numbers)), dtype=np.int32)
    for part, ((prompts, _), phrases) in enumerate(parts):
        found[part, np.searchsorted(numbers, prompts)] = phrases
    return found


def arrays(rows: Sequence[tuple[int, int, float | None, str]], scale: Scale) -> tuple[PromptScores, int]:
    """Prompt numbers, scores, and how many scored completions were cut off."""
    prompts = np.fromiter((prompt for _, prompt, _, _ in rows), np.int64, len(rows))
    scores = [scale.counted(value, finish) for _, _, value, finish in rows]
    values = np.array(scores, dtype=np.float64)  # None becomes NaN
    return (prompts, values), sum(finish == "length" and value is not None for _, _, value, finish in rows)


def tabulate(parts: Sequence[PromptScores]) -> tuple[Floats, Floats]:
    """Sums and counts by part and prompt, (parts, prompts), prompts in ascending order of their number."""
    numbers = np.unique(np.concatenate([prompts for prompts, _ in parts])) if parts else np.empty(0, np.int64)
    sums, counts = np.zeros((len(parts), len(numbers))), np.zeros((len(parts), len(numbers)))
    for part, (prompts, values) in enumerate(parts):
        there = np.isfinite(values)
        which = np.searchsorted(numbers, prompts[there])
        sums[part] = np.bincount(which, weights=values[there], minlength=len(numbers))
        counts[part] = np.bincount(which, minlength=len(numbers))
    return sums, counts
