"""The fit of a grid: slope, R² and CV with intervals, published numbers beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from windowshift.core.contract.records import Arm, Behaviour
from windowshift.core.report.figure import Plot
from windowshift.core.store.reader import Reader
from windowshift.tui.read.pins import Variant
from windowshift.tui.read.snapshot import CellKey, GridCell, behaviour_of, finished
from windowshift.tui.text import formats

if TYPE_CHECKING:
    from windowshift.core.settings.published import Published


@dataclass(frozen=True, slots=True)
class Number:
    """A number with its interval."""

    value: float
    low: float | None
    high: float | None

    @property
    def text(self) -> str:
        """The interval as text, signed."""
        return formats.interval(self.low, self.high, sign=True)


@dataclass(frozen=True, slots=True)
class Measured:
    """A cell against the base model: as it is shown, and on the link scale."""

    effect: Number | None
    link: Number | None


@dataclass(frozen=True, slots=True)
class Fit:
    """One arm's grouped fit and the CV of chosen rows; `reason` says why there is no line."""

    points: int
    slope: Number | None
    r2: Number | None
    reason: str
    spreads: dict[str, tuple[tuple[str, Number], ...]]


@dataclass(frozen=True, slots=True)
class Fits:
    """What was measured of one experiment and behaviour: a fit an arm, its cells, and what is published.

    `positions` says where each row stands in the scatter.
    """

    behaviour: Behaviour
    by_arm: dict[str, Fit]
    cells: dict[CellKey, Measured]
    published: Published | None
    scatter: Plot = field(default_factory=lambda: Plot("grouped", ""))
    positions: dict[Variant, tuple[float, float]] = field(default_factory=dict)

    def marked(self, pinned: Sequence[Variant]) -> Plot:
        """Return the scatter with the pinned rows numbered."""
        marks = [(*self.positions[row], str(number)) for number, row in enumerate(pinned, 1) if row in self.positions]
        return replace(self.scatter, marks=tuple(marks))


def effect_of(cell: GridCell, behaviour: Behaviour, fits: Fits | None, *, link: bool = False) -> Number | None:
    """Return a cell against its base, as it is shown or on the link scale, with its interval once it is measured.

    Where both have a score for every prompt the number is known before; the interval of an older measurement, of
    another number, is left out.
    """
    if cell.mean is None or cell.base_mean is None:
        return None
    scale = behaviour.scale
    measured = fits.cells.get(cell.key) if fits and fits.behaviour == behaviour else None
    found = (measured.link if link else measured.effect) if measured else None
    if link and scale.words.two:
        now = scale.distance(cell.base_mean, cell.mean, *_counts(cell)) if cell.whole else None
    else:
        now = cell.effect(scale)
    if now is None or (found and math.isclose(found.value, now, rel_tol=1e-9, abs_tol=1e-9)):
        return found
    return Number(now, None, None)


def _counts(cell: GridCell) -> tuple[int, int]:
    base, own = finished(cell.base), cell.summary
    return base.n if base else 0, own.n if own else 0


def read_fits(reader: Reader, name: str, behaviour_name: str) -> Fits | None:
    """Measure an experiment; runs in a worker thread, because it loads numpy."""
    # numpy and yaml cost a tenth of a second at start, and only this needs them.
    from windowshift.core.contract.stats import Estimate
    from windowshift.core.measure.grid import load_grid
    from windowshift.core.measure.measurement import measure
    from windowshift.core.report.gallery import grouped as scatter
    from windowshift.core.settings.published import published

    def number(found: Estimate | None) -> Number | None:
        return None if found is None else Number(found.value, found.low, found.high)

    experiment = reader.experiment(name)
    if experiment is None:
        return None
    behaviour = behaviour_of(experiment, behaviour_name)
    measured = measure(load_grid(reader, experiment, behaviour))
    fits: dict[str, Fit] = {}
    cells: dict[CellKey, Measured] = {}
    positions: dict[Variant, tuple[float, float]] = {}
    for arm, found in measured.arms.items():
        grouped = found.whole.grouped
        spreads = {
            generate: tuple((s.train, value) for s in group.spreads if (value := number(s.value)) is not None)
            for generate, group in found.by_generate.items()
        }
        fits[arm] = Fit(grouped.points, number(grouped.slope), number(grouped.r2), grouped.reason or "", spreads)
        for point in found.whole.points:
            if point.x is not None and point.y is not None:
                positions[arm, point.generate, point.train] = (point.x.value, point.y.value)
        for cell in found.seed_cells:
            key = cell.key
            if cell.effect is not None and key.seed is not None:
                name_of = CellKey(cast(Arm, arm), key.generate, key.train, key.evaluate, key.seed, key.step)
                cells[name_of] = Measured(number(cell.effect), number(cell.uplift))
    known = published(experiment.setting, behaviour.name)
    return Fits(behaviour, fits, cells, known, scatter(measured, {}), positions)
