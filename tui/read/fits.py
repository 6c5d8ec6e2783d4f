"""The fit of a grid: slope, R² and CV with intervals, published numbers beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from windowshift.core.contract.records import Arm
from windowshift.core.report.figure import Plot
from windowshift.core.store.reader import Reader
from windowshift.tui.read.pins import Variant
from windowshift.tui.read.snapshot import CellKey, behaviour_of
from windowshift.tui.text import formats

if TYPE_CHECKING:
    from windowshift.core.settings.published import Published

RESAMPLES = 400
"""Enough for an interval to two digits on screen, a fifth of what a report takes."""


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
class Fit:
    """One arm's grouped fit and the CV of chosen rows; `reason` says why there is no line."""

    points: int
    slope: Number | None
    r2: Number | None
    reason: str
    spreads: dict[str, tuple[tuple[str, Number], ...]]


@dataclass(frozen=True, slots=True)
class Fits:
    """What was measured of one experiment: a fit an arm, the uplift intervals of its cells, and what is published.

    `positions` says where each row stands in the scatter.
    """

    by_arm: dict[str, Fit]
    uplifts: dict[CellKey, Number]
    published: Published | None
    scatter: Plot = field(default_factory=lambda: Plot("grouped", ""))
    positions: dict[Variant, tuple[float, float]] = field(default_factory=dict)

    def marked(self, pinned: Sequence[Variant]) -> Plot:
        """Return the scatter with the pinned rows numbered."""
        marks = [(*self.positions[row], str(number)) for number, row in enumerate(pinned, 1) if row in self.positions]
        return replace(self.scatter, marks=tuple(marks))

    def uplift(self, key: CellKey) -> str:
        """Return the interval of a cell's uplift, paired by prompt."""
        found = self.uplifts.get(key)
        return found.text if found else ""


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
    measured = measure(load_grid(reader, experiment, behaviour_of(experiment, behaviour_name)), resamples=RESAMPLES)
    fits: dict[str, Fit] = {}
    uplifts: dict[CellKey, Number] = {}
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
            uplift, key = number(cell.uplift), cell.key
            if uplift is not None and key.seed is not None:
                uplifts[CellKey(cast(Arm, arm), key.generate, key.train, key.evaluate, key.seed, key.step)] = uplift
    return Fits(fits, uplifts, published(experiment.setting), scatter(measured, {}), positions)
