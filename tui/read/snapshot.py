"""Frozen snapshots of experiments and their grids, as the screens show them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from windowshift.core.contract.records import (
    BASE,
    Arm,
    Behaviour,
    CellRow,
    ExperimentRow,
    RunRow,
    SourceRow,
    Summary,
    primary_of,
)
from windowshift.core.contract.scale import Scale
from windowshift.core.report.figure import Plot
from windowshift.core.store.reader import Reader
from windowshift.tui.read.column_heads import ColumnHead, column_heads
from windowshift.tui.read.together import Together, togethers


@dataclass(frozen=True, slots=True)
class ExperimentView:
    """An experiment with its newest run."""

    row: ExperimentRow
    run: RunRow | None


class CellKey(NamedTuple):
    """What names a cell, whatever number it has in the store."""

    arm: Arm
    generate: str
    train: str
    evaluate: str
    seed: int
    step: int


SETTLED = ("done", "failed", "cancelled")
"""States of a job whose numbers change no more."""


BASE_ROW = -1
"""The number of the base model's row, which stands above the first one."""


class Page(NamedTuple):
    """One page of the grid: everything that was trained on one generation condition's data."""

    arm: Arm
    generate: str


@dataclass(frozen=True, slots=True)
class GridChoice:
    """Which part of an experiment the grid shows; None takes the first, or for `step` the last.

    `together` names behaviours that are shown in one cell (see `Together`); None: one behaviour alone.
    """

    page: Page | None = None
    behaviour: str | None = None
    seed: int | None = None
    step: int | None = None
    together: str | None = None


@dataclass(frozen=True, slots=True)
class GridCell:
    """A cell beside the base cell of the same eval condition."""

    cell: CellRow
    base: CellRow | None

    @property
    def key(self) -> CellKey:
        """The cell's name."""
        cell = self.cell
        return CellKey(cell.arm, cell.generate, cell.train, cell.evaluate, cell.seed, cell.step)

    @property
    def summary(self) -> Summary | None:
        """The summary of its scores, once it is done: short completions come first, so that earlier it misleads."""
        return finished(self.cell)

    @property
    def mean(self) -> float | None:
        """The mean score."""
        return self.summary.mean if self.summary else None

    @property
    def base_mean(self) -> float | None:
        """The base model's mean under the same eval condition."""
        found = finished(self.base)
        return found.mean if found else None

    @property
    def whole(self) -> bool:
        """Whether it and its base have a score for every prompt: the means are then over the same prompts."""
        own, base = self.summary, finished(self.base)
        return bool(own and base and own.n == base.n > 0 and not own.missing and not base.missing)

    def effect(self, scale: Scale) -> float | None:
        """Return the effect against the base as it is shown; None where the means are not over the same prompts."""
        if not self.whole or self.mean is None or self.base_mean is None:
            return None
        return scale.effect_of(self.mean, self.base_mean)


def trained_seeds(cells: Iterable[CellRow]) -> int:
    """Return how many training runs a row of the grid has."""
    return len({cell.seed for cell in cells if cell.train != BASE})


def finished(cell: CellRow | None) -> Summary | None:
    """Return a cell's summary once the cell is done."""
    return cell.summary if cell is not None and cell.state == "done" else None


@dataclass(frozen=True, slots=True)
class GridRow:
    """The cells of one train condition in column order.

    `data_mean` is the mean of its D over `data_n` scores, `train_mean` the base model's under the train condition,
    over `train_n`; None until all of it is there. `cut` counts what was cut off behind both, `data_cut` behind D alone.

    The first `own` cells are under eval conditions of the row's arm: its summaries are over those alone.
    """

    train: str
    cells: tuple[GridCell | None, ...]
    own: int
    data_mean: float | None = None
    train_mean: float | None = None
    data_n: int = 0
    train_n: int = 0
    cut: int = 0
    data_cut: int = 0

    @property
    def own_cells(self) -> tuple[GridCell | None, ...]:
        """The cells under the arm's own eval conditions."""
        return self.cells[: self.own]

    def surprise(self, scale: Scale) -> float | None:
        """Return train_mean_ratio, the base model's mean under the train condition over D's; else their distance."""
        if self.train_mean is None or self.data_mean is None:
            return None
        if scale.kind == "ratio":
            return self.train_mean / self.data_mean if self.data_mean > 0 else None
        found = scale.distance(self.data_mean, self.train_mean, self.data_n, self.train_n)
        return found if math.isfinite(found) else None


@dataclass(frozen=True, slots=True)
class GridSnapshot:
    """One page of an experiment's grid with what can be chosen instead.

    Where several behaviours are shown `together`, `beside` has the same page of each of them, and `figure` draws them.
    """

    experiment: ExperimentView
    behaviour: Behaviour
    pages: tuple[Page, ...]
    page: Page
    seeds: tuple[int, ...]
    seed: int
    steps: tuple[int, ...]
    step: int | None
    heads: tuple[ColumnHead, ...]
    base: GridRow
    rows: tuple[GridRow, ...] = field(default=())
    together: Together | None = None
    beside: tuple[GridSnapshot, ...] = ()
    figure: Plot | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The eval conditions of the page."""
        return tuple(head.name for head in self.heads)

    @property
    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The train and the eval conditions, in order."""
        return tuple(row.train for row in self.rows), self.columns

    def place_of(self, train: str | None, evaluate: str | None) -> tuple[int, int]:
        """Return the row and the column of two conditions; the first ones for what is not on this page."""
        trains, columns = self.names
        row = BASE_ROW if train == BASE else trains.index(train) if train in trains else 0
        return row, columns.index(evaluate) if evaluate in columns else 0

    def at(self, row: int, column: int) -> GridCell | None:
        """Return the cell at a row and a column; None where there is none."""
        if row >= len(self.rows):
            return None
        cells = (self.base if row == BASE_ROW else self.rows[row]).cells
        return cells[column] if column < len(cells) else None

    @property
    def chosen(self) -> tuple[object, ...]:
        """What tells this part of the grid from others of the experiment."""
        return self.page, self.behaviour.name, self.seed, self.step

    def cell(self, train: str, evaluate: str) -> GridCell | None:
        """Return the cell of two conditions; None where this page has none."""
        row = self.base if train == BASE else next((row for row in self.rows if row.train == train), None)
        return row.cells[self.columns.index(evaluate)] if row is not None and evaluate in self.columns else None


def read_experiments(reader: Reader) -> tuple[ExperimentView, ...]:
    """Return every experiment, newest first."""
    return tuple(ExperimentView(row, reader.run(row.id)) for row in reader.experiments())


def read_experiment(reader: Reader, name: str) -> ExperimentView | None:
    """Return one experiment; None where the store has none of this name."""
    row = reader.experiment(name)
    return ExperimentView(row, reader.run(row.id)) if row else None


def behaviour_of(experiment: ExperimentRow, name: str | None) -> Behaviour:
    """Return a behaviour by name, else the primary one."""
    known = experiment.behaviours or (Behaviour("score", "", Scale.difference()),)
    return next((b for b in known if b.name == name), primary_of(known))


def name_beside(behaviour: Behaviour, experiment: ExperimentRow) -> str:
    """The behaviour's name where the unit beside its numbers does not say which one it is, else nothing.

    Characters are no words; but two rates in %, or two grades in points, look alike.
    """
    if behaviour.guard:
        return f"{behaviour.name} (guard)"
    unit = behaviour.score_unit
    alike = [other for other in experiment.behaviours if other.score_unit == unit]
    return "" if unit and len(alike) < 2 else behaviour.name


def read_grid(reader: Reader, name: str, choice: GridChoice) -> GridSnapshot | None:
    """Return the chosen page of an experiment's grid; None where there is no such experiment."""
    view = read_experiment(reader, name)
    if view is None:
        return None
    grid = _page(reader, view, choice)
    together = next((one for one in togethers(view.row) if one.name == choice.together), None)
    if together is None:
        return grid
    choices = (replace(choice, page=grid.page, behaviour=one.name) for one in together.behaviours)
    beside = tuple(_page(reader, view, one) for one in choices)
    return replace(grid, together=together, beside=beside, figure=together.figure(reader, view.row, *grid.page))


def _page(reader: Reader, view: ExperimentView, choice: GridChoice) -> GridSnapshot:
    """One page of one behaviour."""
    behaviour = behaviour_of(view.row, choice.behaviour)
    cells = reader.cells(view.row.id, behaviour.name)
    trained = [cell for cell in cells if cell.train != BASE]
    pages = tuple(dict.fromkeys(Page(cell.arm, cell.generate) for cell in trained)) or (Page("prefix", ""),)
    page = choice.page if choice.page in pages else pages[0]
    seeds = tuple(sorted({cell.seed for cell in cells})) or (0,)
    seed = choice.seed if choice.seed in seeds else seeds[0]
    on_page = [cell for cell in trained if (cell.arm, cell.generate, cell.seed) == (*page, seed)]
    steps = tuple(sorted({cell.step for cell in on_page if not cell.final}))
    step = choice.step if choice.step in steps else None
    shown = [cell for cell in on_page if (cell.final if step is None else cell.step == step)]
    base = _base_cells([cell for cell in cells if cell.train == BASE], page.arm, seed)
    # Base cells of conditions that the page has no cells under, such as controls, are not its business.
    names = [cell.evaluate for cell in on_page] or list(base)
    # An order of means that still come in would change under people's eyes.
    settled = all(base[name].state in SETTLED for name in names if name in base)
    means = _means(base) if settled else {}
    heads = column_heads(view.row, page.arm, _order(names, page.arm, means, _names(view.row, "evaluate")))
    columns, own = [head.name for head in heads], sum(not head.crossed for head in heads)
    # A guard asks other prompts than D's: how surprising D is says nothing of it.
    told = () if behaviour.guard else reader.sources(view.row.id)
    sources = [s for s in told if (s.arm, s.generate, s.seed) == (*page, seed)]
    rows = _rows(reader, shown, base, sources, behaviour, columns, own)
    train_means = {row.train: row.train_mean for row in rows} if settled else {}
    trains = _order([row.train for row in rows], page.arm, train_means, _names(view.row, "train"))
    by_train = {row.train: row for row in rows}
    return GridSnapshot(
        experiment=view,
        behaviour=behaviour,
        pages=pages,
        page=page,
        seeds=seeds,
        seed=seed,
        steps=steps,
        step=step,
        heads=heads,
        base=GridRow(BASE, tuple(_beside(base.get(column), base.get(column)) for column in columns), own),
        rows=tuple(by_train[train] for train in trains),
    )


def _base_cells(cells: Sequence[CellRow], arm: str, seed: int) -> dict[str, CellRow]:
    # Base cells may be shared over arms and seeds; the closest one counts.
    ranked = sorted(cells, key=lambda cell: (cell.arm != arm, cell.seed != seed, cell.seed))
    found: dict[str, CellRow] = {}
    for cell in ranked:
        found.setdefault(cell.evaluate, cell)
    return found


def _means(base: dict[str, CellRow]) -> dict[str, float | None]:
    return {name: found.mean if (found := finished(cell)) else None for name, cell in base.items()}


def _names(experiment: ExperimentRow, role: str) -> list[str]:
    return [str(item.get("name", "")) for item in experiment.conditions.get(role, [])]


def _order(names: Sequence[str], arm: Arm, means: dict[str, float | None], spec: Sequence[str]) -> tuple[str, ...]:
    """Order the conditions of an arm's page.

    Prefixes by the base model's mean, those without one last, once all are there (before, `means` is empty: as the
    spec lists them); doses as the spec lists them, because they have an order of their own, which a noisy mean would
    upset.
    """
    place = {name: number for number, name in reversed(list(enumerate(spec)))}
    unique = list(dict.fromkeys(names))

    def rank(name: str) -> tuple[float, int]:
        mean = 0.0 if arm == "steering" else means.get(name)
        return (math.inf if mean is None else mean, place.get(name, len(spec)))

    return tuple(sorted(unique, key=rank))


def _rows(
    reader: Reader,
    shown: Sequence[CellRow],
    base: dict[str, CellRow],
    sources: Sequence[SourceRow],
    behaviour: Behaviour,
    columns: Sequence[str],
    own: int,
) -> list[GridRow]:
    data: dict[tuple[int, int, int], tuple[list[float], int] | None] = {}
    rows = []
    by_train: dict[str, dict[str, CellRow]] = {}
    for cell in shown:
        by_train.setdefault(cell.train, {})[cell.evaluate] = cell
    for train, cells in by_train.items():
        parts = [source for source in sources if source.train == train]
        scores = [
            _data(reader, part, behaviour, data) for part in {(p.job, p.first, p.last): p for p in parts}.values()
        ]
        known = [value for part in scores if part for value in part[0]]
        in_data = sum(part[1] for part in scores if part)
        whole = bool(known) and all(part is not None for part in scores)
        under, n, cut = _train_mean(reader, parts, base, behaviour.name, train)
        rows.append(
            GridRow(
                train,
                tuple(_beside(cells.get(column), base.get(column)) for column in columns),
                own,
                data_mean=sum(known) / len(known) if whole else None,
                data_n=len(known) if whole else 0,
                train_mean=under,
                train_n=n,
                cut=cut + in_data,
                data_cut=in_data,
            )
        )
    return rows


def _data(
    reader: Reader,
    part: SourceRow,
    behaviour: Behaviour,
    known: dict[tuple[int, int, int], tuple[list[float], int] | None],
) -> tuple[list[float], int] | None:
    """The scores of a part of D, and how many were cut off; None while its job is not done."""
    key = (part.job, part.first, part.last)
    if key not in known:
        known[key] = None
        if reader.job(part.job).state == "done":
            rows = [row for row in reader.weighted_scores(part.job, behaviour.name) if part.first <= row[0] < part.last]
            scores = (behaviour.scale.counted(value, finish) for _, _, value, finish in rows)
            cut = sum(value is not None and finish == "length" for _, _, value, finish in rows)
            known[key] = [score for score in scores if score is not None], cut
    return known[key]


def _train_mean(
    reader: Reader, parts: Sequence[SourceRow], base: dict[str, CellRow], behaviour: str, train: str
) -> tuple[float | None, int, int]:
    """The base model's mean under the parts' train conditions, by their fractions; least n; what was cut off."""
    found = [_reference(reader, part, base, behaviour) for part in parts] or [finished(base.get(train))]
    weights = [part.fraction for part in parts] or [1.0]
    means = [one.mean for one in found if one is not None and one.mean is not None]
    if len(means) < len(found) or not sum(weights):
        return None, 0, 0
    there = [one for one in found if one is not None]
    mean = sum(weight * mean for weight, mean in zip(weights, means, strict=True)) / sum(weights)
    return mean, min(one.n for one in there), sum(one.truncated for one in there)


def _reference(reader: Reader, part: SourceRow, base: dict[str, CellRow], behaviour: str) -> Summary | None:
    """The base model's summary under a part's train condition, which need not be an eval condition."""
    if part.part_train in base or part.reference is None:
        return finished(base.get(part.part_train))
    return reader.summary(part.reference, behaviour) if reader.job(part.reference).state == "done" else None


def _beside(cell: CellRow | None, base: CellRow | None) -> GridCell | None:
    return GridCell(cell, base) if cell else None
