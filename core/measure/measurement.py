"""Measuring: from a grid to the measures of docs/architecture.md, with intervals from one joint bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from windowshift.core.contract.records import BASE, CellRow
from windowshift.core.contract.stats import RESAMPLES, Estimate, Floats, estimate, estimated, intervals, ols
from windowshift.core.measure.arm import Arm
from windowshift.core.measure.course import course
from windowshift.core.measure.effect import change
from windowshift.core.measure.grid import Grid
from windowshift.core.measure.measures import (
    ArmMeasures,
    CellMeasure,
    Direction,
    Extreme,
    Fit,
    GroupMeasures,
    Measures,
    Point,
    Spread,
)
from windowshift.core.measure.resampled import Key, Resampled

MIN_POINTS = 3


def measure(grid: Grid, *, resamples: int = RESAMPLES, seed: int = 0) -> Measures:
    """Compute every measure of a grid; what cannot be computed yet is None and says why."""
    return measure_resampled(Resampled(grid, resamples, seed))


def measure_resampled(resampled: Resampled) -> Measures:
    """As `measure`, on a grid that was resampled already."""
    arms: dict[str, ArmMeasures] = {}
    for name in resampled.arms:
        arms[name] = _Measurer(Arm(resampled, name)).measure()
    return Measures(resampled.grid.behaviour, arms)


class _Measurer:
    """Reads one arm's measures off the resampled grid."""

    def __init__(self, arm: Arm) -> None:
        self.arm, self.r = arm, arm.resampled

    def measure(self) -> ArmMeasures:
        """Everything of the arm."""
        arm = self.arm
        columns = {key: column for key, column in self.r.column.items() if key.arm == arm.name}
        cells = self.cells(columns)
        # The base model under the other arm's eval conditions has cells there; it is shown here too.
        here = {key.evaluate for key in columns if key.train == BASE}
        shared = {
            key: column
            for key, column in self.r.column.items()
            if key.train == BASE and key.seed is None and key.evaluate in arm.columns and key.evaluate not in here
        }
        by_generate = {generate: self.group([generate], None) for generate in arm.generates}
        only = next(iter(by_generate.values())) if len(by_generate) == 1 else None
        return ArmMeasures(
            arm=arm.name,
            scale=self.r.scale,
            generates=arm.generates,
            trains=arm.trains,
            columns=arm.columns,
            evaluates=arm.evaluates,
            crossed=arm.crossed,
            seeds=arm.seeds,
            cells=tuple(cell for cell in (*cells, *self.cells(shared)) if cell.key.seed is None),
            seed_cells=tuple(cell for cell in cells if cell.key.seed is not None),
            whole=only or self.group(arm.generates, None),
            by_generate=by_generate,
            by_seed={s: self.group(arm.generates, s) for s in arm.seeds} if len(arm.seeds) > 1 else {},
            course=course(arm),
        )

    # -- cells ----------------------------------------------------------------------------------

    def cells(self, columns: dict[Key, int]) -> tuple[CellMeasure, ...]:
        """The cells of some columns."""
        r = self.r
        # A seed's column and the pooled one are the same where there is one seed.
        index = sorted(set(columns.values()))
        place = {column: i for i, column in enumerate(index)}
        low, high = intervals(r.samples[:, index])
        uplift, uplift_samples = r.uplifts
        uplift_low, uplift_high = intervals(uplift_samples[:, index])
        effect, effect_low, effect_high = uplift, uplift_low, uplift_high
        if r.scale.words.two:
            effect, effect_samples = r.effects
            effect_low, effect_high = intervals(effect_samples[:, index])
        base_means, shared = r.paired.base_means, r.paired.n
        return tuple(
            CellMeasure(
                key=key,
                status=_status(cells := r.cells(column)),
                progress=(sum(cell.done for cell in cells), sum(cell.total for cell in cells)),
                tally=r.tally(column),
                mean=estimated(r.means[column], low[i], high[i], int(r.n[column])),
                sd=_number(r.grid.sds[column]) if column < len(r.grid.cells) and r.done(column) else None,
                base_mean=_number(base_means[column]),
                uplift=estimated(uplift[column], uplift_low[i], uplift_high[i], int(shared[column])),
                effect=estimated(effect[column], effect_low[i], effect_high[i], int(shared[column])),
            )
            for key, column in columns.items()
            for i in (place[column],)
        )

    # -- rows -----------------------------------------------------------------------------------

    def group(self, generates: Sequence[str], seed: int | None) -> GroupMeasures:
        """The measures of the rows of some generation conditions."""
        rows = [(g, t) for g in generates for t in self.arm.trains if (g, t) in self.arm.rows]
        uplift, samples = self.r.uplifts
        effects, effect_samples = self.r.effects
        none = np.full(len(samples), np.nan)
        points, grouped, by_evaluate = [], _Points(), {evaluate: _Points() for evaluate in self.arm.evaluates}
        for generate, train in rows:
            x = self.position(generate, train, seed)
            columns = [self.arm.column(generate, train, evaluate, seed) for evaluate in self.arm.evaluates]
            done = [c for c in columns if c is not None and np.isfinite(uplift[c])]
            whole = len(done) == len(self.arm.evaluates)
            reason = None if whole else f"{len(done)} of {len(self.arm.evaluates)} eval cells done"
            mean, drawn = (float(uplift[done].mean()), samples[:, done].mean(axis=1)) if whole else (np.nan, none)
            n = int(self.r.n[done].sum())
            y = effect = estimate(mean, drawn, n)
            if whole and self.r.scale.words.two:
                effect = estimate(float(effects[done].mean()), effect_samples[:, done].mean(axis=1), n)
            data = self.data(generate, train, seed)
            if x is None:
                reason = "the base model's cell under the train condition, or D, is not there"
                if not self.arm.parts(generate, train, seed):
                    reason = "trained in stages: how surprising D is says nothing of a model that was trained before"
                points.append(Point(generate, train, seed, None, None, y, effect, data, reason))
                continue
            points.append(Point(generate, train, seed, x.ratio, x.estimate, y, effect, data, reason))
            if whole:
                grouped.add(x.value, x.samples, mean, drawn)
            for evaluate, c in zip(self.arm.evaluates, columns, strict=True):
                if c is not None and np.isfinite(uplift[c]):
                    by_evaluate[evaluate].add(x.value, x.samples, uplift[c], samples[:, c])
        placed = sum(1 for row in rows if self.arm.parts(*row, seed))  # those of stages have no place on a line
        fits = {evaluate: found.fit(placed) for evaluate, found in by_evaluate.items()}
        first = next(iter(generates), None)
        spreads = self.spreads(first, seed, self.arm.evaluates) if first is not None else ()
        crossed = self.spreads(first, seed, self.arm.crossed) if first is not None and self.arm.crossed else ()
        extremes = self.extremes(first, seed) if first is not None else ()
        return GroupMeasures(tuple(points), grouped.fit(placed), fits, spreads, extremes, crossed)

    def position(self, generate: str, train: str, seed: int | None) -> _Position | None:
        """Where a row stands on the x axis; None where its base mean or its D is not there."""
        parts = self.arm.parts(generate, train, seed)
        base = self.r.base_under(self.arm.name, parts, seed)
        if base is None:
            return None
        base_mean, base_samples, base_n = base
        mean, drawn, n = self.r.dataset(parts)
        scale = self.r.scale
        value = scale.linked(base_mean, base_n, mean, n)
        samples = scale.linked(base_samples, base_n, drawn, n)
        found = estimate(float(value), samples, n)
        if found is None:
            return None
        ratio = estimate(float(2**value), 2**samples, n) if scale.kind == "ratio" else None
        return _Position(float(value), samples, found, ratio)

    def data(self, generate: str, train: str, seed: int | None) -> Estimate | None:
        """The mean of a row's D."""
        parts = self.arm.parts(generate, train, seed)
        return estimate(*self.r.dataset(parts)) if parts else None

    def spreads(self, generate: str, seed: int | None, evaluates: tuple[str, ...]) -> tuple[Spread, ...]:
        """The CV of the base model and of each row of a generation condition, across some eval conditions."""
        base = self.arm.spread_of(generate, BASE, seed, evaluates)
        found = []
        for train in (BASE, *self.arm.trains):
            if train != BASE and (generate, train) not in self.arm.rows:
                continue
            columns, value, samples = self.arm.spread_of(generate, train, seed, evaluates)
            n, kept = len(evaluates), None
            if columns == n and base[0] == n and base[1] > 0:
                with np.errstate(divide="ignore", invalid="ignore"):
                    kept = estimate(float(value / base[1]), samples / base[2], n)
            reason = None
            if n < 2:
                reason = "a spread needs two eval conditions"
            elif columns < n:
                reason = f"{columns} of {n} eval cells done"
            one = estimate(value, samples, n) if reason is None else None
            found.append(Spread(generate, train, one, kept if one else None, reason))
        return tuple(found)

    def extremes(self, generate: str, seed: int | None) -> tuple[Extreme, ...]:
        """The lowest and the highest cell of a generation condition, the primary direction first."""
        r = self.r
        trains = [t for t in self.arm.trains if (generate, t) in self.arm.rows and t not in self.arm.plain]
        planned = [(t, e) for t in trains for e in self.arm.evaluates]
        done = {(t, e): c for t, e in planned if (c := self.arm.column(generate, t, e, seed)) is not None}
        reference = [e for e in self.arm.evaluates if e in self.arm.plain] or list(self.arm.evaluates)
        bases = [c for e in reference if (c := self.arm.column("", BASE, e, seed)) is not None]
        parts = [p for t in self.arm.trains for p in self.arm.parts(generate, t, seed)]
        data = r.dataset(parts)[0] if parts else np.nan
        if not done or len(bases) < len(reference) or not np.isfinite(data):
            return ()
        low_first = data < float(r.means[bases].mean())
        directions: tuple[Direction, Direction] = ("low", "high") if low_first else ("high", "low")
        found = []
        for direction in directions:
            sign = 1 if direction == "low" else -1
            (train, evaluate), column = min(done.items(), key=lambda item: sign * r.means[item[1]])
            unpushed = [t for t in self.arm.trains if (generate, t) in self.arm.rows and t in self.arm.plain]
            plain = self.arm.column(generate, unpushed[0], evaluate, seed) if unpushed else None
            found.append(
                Extreme(
                    direction=direction,
                    train=train,
                    evaluate=evaluate,
                    mean=float(r.means[column]),
                    tally=r.tally(column),
                    vs_base=self.against(column, self.arm.column("", BASE, evaluate, seed)),
                    vs_no_prefix=self.against(column, plain),
                    cells=len(done),
                    planned=len(planned),
                    unpushed=bool(unpushed),
                )
            )
        return tuple(found)

    def against(self, column: int, other: int | None) -> Estimate | None:
        """A cell against another one, as the scale's change; paired by prompt."""
        if other is None:
            return None
        pair = self.r.compared(column, other)
        return estimate(*change(self.r.scale, pair), int(pair.n))


@dataclass(frozen=True, slots=True, eq=False)
class _Position:
    value: float
    samples: Floats
    estimate: Estimate
    ratio: Estimate | None


class _Points:
    """Points of a fit with their resamples."""

    def __init__(self) -> None:
        self._x: list[Floats] = []
        self._y: list[Floats] = []

    def add(self, x: float, x_samples: Floats, y: float, y_samples: Floats) -> None:
        """Add a point; its value goes in front of its resamples."""
        self._x.append(np.concatenate([[x], x_samples]))
        self._y.append(np.concatenate([[y], y_samples]))

    def fit(self, rows: int) -> Fit:
        """The line through the points; none through fewer than three."""
        n = len(self._x)
        if n < MIN_POINTS:
            reason = f"a line needs {MIN_POINTS} finished rows, and {n} of {rows} are"
            return Fit(n, rows, None, None, None, reason)
        slope, intercept, r2 = ols(np.stack(self._x, axis=1), np.stack(self._y, axis=1))
        if not np.isfinite(slope[0]):
            return Fit(n, rows, None, None, None, "the rows do not differ in how surprising D is")
        a, b, r = (estimate(float(values[0]), values[1:], n) for values in (slope, intercept, r2))
        return Fit(n, rows, a, b, r, None)


def _status(cells: Sequence[CellRow]) -> str:
    """One state for several cells: the first of these that one of them is in."""
    states = {cell.state for cell in cells}
    if len(states) == 1:
        return states.pop()
    if found := [state for state in ("failed", "cancelled", "running", "paused") if state in states]:
        return found[0]
    return "running"  # some are done, others wait


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
