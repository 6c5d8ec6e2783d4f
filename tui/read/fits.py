"""What was measured of a grid, for the screens: fits, cells and spreads with intervals, published numbers beside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.records import Arm, Behaviour
from windowshift.core.report.figure import Plot
from windowshift.core.store.reader import Reader
from windowshift.tui.read.pins import Variant
from windowshift.tui.read.snapshot import CellKey, GridCell, GridRow, GridSnapshot, behaviour_of, finished

if TYPE_CHECKING:
    from windowshift.core.measure.measures import ArmMeasures, CellMeasure, GroupMeasures
    from windowshift.core.settings.published import Published


@dataclass(frozen=True, slots=True)
class Fits:
    """What was measured of one experiment and behaviour, arm by arm, its cells, and what is published.

    `positions` says where each row stands in the scatter.
    """

    behaviour: Behaviour
    arms: Mapping[str, ArmMeasures]
    cells: Mapping[CellKey, CellMeasure]
    published: Published | None
    scatter: Plot = field(default_factory=lambda: Plot("grouped", ""))
    positions: Mapping[Variant, tuple[float, float]] = field(default_factory=dict)

    def marked(self, pinned: Sequence[Variant]) -> Plot:
        """Return the scatter with the pinned rows numbered."""
        marks = [(*self.positions[row], str(number)) for number, row in enumerate(pinned, 1) if row in self.positions]
        return replace(self.scatter, marks=tuple(marks))


def effect_of(cell: GridCell, behaviour: Behaviour, fits: Fits | None, *, link: bool = False) -> Estimate | None:
    """Return a cell against its base, as it is shown or on the link scale, with its interval once it is measured.

    Where both have a score for every prompt the number is known before; the interval of an older measurement, of
    another number, is left out.
    """
    if cell.mean is None or cell.base_mean is None:
        return None
    scale = behaviour.scale
    measured = fits.cells.get(cell.key) if fits and fits.behaviour == behaviour else None
    found = (measured.uplift if link else measured.effect) if measured else None
    if link and scale.words.two:
        now = scale.distance(cell.base_mean, cell.mean, *_counts(cell)) if cell.whole else None
    else:
        now = cell.effect(scale)
    if now is None or (found and math.isclose(found.value, now, rel_tol=1e-9, abs_tol=1e-9)):
        return found
    return Estimate(now, None, None, cell.summary.n if cell.summary else 0)


def mean_of(cell: GridCell, behaviour: Behaviour, fits: Fits | None) -> Estimate | None:
    """Return a cell's mean with its interval; one that was stored without is that of the measurement."""
    found = cell.summary.estimate if cell.summary else None
    measured = fits.cells.get(cell.key) if fits and fits.behaviour == behaviour else None
    if found is None or found.interval is not None or measured is None or measured.mean is None:
        return found
    return measured.mean if math.isclose(found.value, measured.mean.value, rel_tol=1e-9, abs_tol=1e-9) else found


def _counts(cell: GridCell) -> tuple[int, int]:
    base, own = finished(cell.base), cell.summary
    return base.n if base else 0, own.n if own else 0


def _complete(grid: GridSnapshot) -> bool:
    """Whether no finished cell of a page lacks a score: its means are then all over the same prompts."""
    cells = [cell for row in (grid.base, *grid.rows) for cell in row.own_cells if cell is not None]
    return not any(cell.summary.missing for cell in cells if cell.summary is not None)


def _measured(grid: GridSnapshot, fits: Fits | None) -> GroupMeasures | None:
    arm = fits.arms.get(grid.page.arm) if fits and fits.behaviour == grid.behaviour else None
    if arm is None:
        return None
    group = arm.by_generate.get(grid.page.generate)
    return group if len(arm.seeds) < 2 else arm.by_seed.get(grid.seed)


def spread_in(grid: GridSnapshot, row: GridRow, fits: Fits | None) -> float | None:
    """Return CV or sd of a row's mean scores across the arm's own eval conditions.

    None until every one of them has a mean: over fewer it is another number. Where scores are missing it is that of
    the measurement, which goes over the prompts that all cells have.
    """
    means = [cell.mean for cell in row.own_cells if cell is not None]
    known = [mean for mean in means if mean is not None]
    if len(known) < 2 or len(known) < len(row.own_cells):
        return None
    if _complete(grid):
        return grid.behaviour.scale.spread_of(known)
    group = _measured(grid, fits)
    found = {(one.generate, one.train): one.value for one in group.spreads} if group else {}
    one = found.get((grid.page.generate, row.train))
    return one.value if one else None


def surprise_in(grid: GridSnapshot, row: GridRow, fits: Fits | None) -> float | None:
    """Return train_mean_ratio of a row, or its distance from D; where scores are missing, as it was measured."""
    if _complete(grid):
        return row.surprise(grid.behaviour.scale)
    group = _measured(grid, fits)
    points = group.points if group else ()
    found = next((one for one in points if (one.generate, one.train) == (grid.page.generate, row.train)), None)
    number = (found.ratio or found.x) if found else None
    return number.value if number else None


def read_fits(reader: Reader, name: str, behaviour_name: str) -> Fits | None:
    """Measure an experiment; runs in a worker thread, because it loads numpy."""
    # numpy and yaml cost a tenth of a second at start, and only this needs them.
    from windowshift.core.measure.grid import load_grid
    from windowshift.core.measure.grid_measures import measure
    from windowshift.core.report.gallery import grouped as scatter
    from windowshift.core.settings.published import published

    experiment = reader.experiment(name)
    if experiment is None:
        return None
    behaviour = behaviour_of(experiment, behaviour_name)
    measured = measure(load_grid(reader, experiment, behaviour))
    cells: dict[CellKey, CellMeasure] = {}
    positions: dict[Variant, tuple[float, float]] = {}
    for arm, found in measured.arms.items():
        for point in found.whole.points:
            if point.x is not None and point.y is not None:
                positions[arm, point.generate, point.train] = (point.x.value, point.y.value)
        for cell in found.seed_cells:
            key = cell.key
            if cell.mean is not None and key.seed is not None:
                cells[CellKey(cast(Arm, arm), key.generate, key.train, key.evaluate, key.seed, key.step)] = cell
    known = published(experiment.setting, behaviour.name)
    return Fits(behaviour, measured.arms, cells, known, scatter(measured, {}), positions)
