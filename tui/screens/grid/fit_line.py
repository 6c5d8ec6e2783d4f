"""The fit of the grid under the matrix: slope, R² and CV with intervals, published numbers beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from textual.strip import Strip

from windowshift.core.contract.records import Arm
from windowshift.core.store.reader import Reader
from windowshift.tui.read.pins import Variant
from windowshift.tui.read.snapshot import CellKey, Page, behaviour_of
from windowshift.tui.text import formats, sanitise
from windowshift.tui.text.pieces import Pieces, length, spread
from windowshift.tui.text.plot import Plot
from windowshift.tui.widgets.inked import Drawn, ink_of

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
    from windowshift.core.settings.published import published
    from windowshift.tui.read.gallery import grouped as scatter

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


class FitLine(Drawn):
    """Slope and R² of the run on the left, the published ones, labelled with their model, on the right."""

    DEFAULT_CSS = "FitLine { height: 2; }"

    def __init__(self) -> None:
        super().__init__()
        self._fit: Fit | None = None
        self._published: Published | None = None
        self._page = Page("prefix", "")

    def show(self, fits: Fits | None, page: Page, measurable: bool) -> None:
        """Show an arm's fit, and the CVs of one page; published numbers only beside the behaviour they are of."""
        fit = fits.by_arm.get(page.arm) if fits else None
        known = fits.published if fits and measurable else None
        if (fit, known, page) != (self._fit, self._published, self._page):
            self._fit, self._published, self._page = fit, known, page
            self.refresh()

    @property
    def text(self) -> str:
        """What it says, without styles."""
        return "\n".join("".join(text for text, _ in line) for line in self._lines(200))

    def render_line(self, y: int) -> Strip:
        """Draw a line."""
        lines = self._lines(self.size.width)
        return self.drawn(lines[y] if y < len(lines) else [])

    def _lines(self, width: int) -> list[Pieces]:
        ink, fit = ink_of(self), self._fit
        if fit is None:
            return []
        if fit.slope is None:
            own: Pieces = [(f" no fit yet: {fit.reason or 'too few rows are there'}", ink.dim)]
        else:
            own = [(" fit: slope ", ink.dim), (formats.signed(fit.slope.value), ink.strong)]
            own.append((f" {fit.slope.text}", ink.text))
            if fit.r2 is not None:
                own += [("   R² ", ink.dim), (_short(fit.r2.value), ink.strong)]
            own.append((f"   {fit.points} points", ink.dim))
        other: Pieces = []
        for known in self._published.grouped if self._published else ():
            numbers = f"{formats.signed(known.slope)} {_short(known.r2)}"
            # What is published is of prefixes: beside doses it says so.
            first = "published: " if self._page.arm == "prefix" else "published for prefixes: "
            before = " · " if other else first
            more: Pieces = [(f"{before}{known.model} ", ink.dim), (numbers, ink.text)]
            if length(own) + length(other) + length(more) + 3 > width:
                break
            other += more
        return [spread(own, [*other, (" ", ink.dim)] if other else [], width), self._spreads(fit, width)]

    def _spreads(self, fit: Fit, width: int) -> Pieces:
        """CV of the base model, then of the rows that keep most and least of it."""
        ink = ink_of(self)
        comparable = self._published if self._page.arm == "prefix" else None
        known = comparable.spread(self._page.generate) if comparable else None
        row: Pieces = [(" CV", ink.dim)]
        spreads = fit.spreads.get(self._page.generate, ())
        first = [one for one in spreads if one[0] in ("base", "no_prefix")]
        for name, number in [*first, *(one for one in reversed(spreads) if one not in first)]:
            more: Pieces = [(f"  {sanitise.line(name, 40)} ", ink.dim), (_short(number.value), ink.text)]
            more.append((f" {formats.interval(number.low, number.high)}", ink.dim))
            if known and name in known.values:
                more.append((f" {known.model} {_short(known.values[name])}", ink.faint))
            if length(row) + length(more) > width:
                break
            row += more
        return row if len(row) > 1 else []


def _short(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")
