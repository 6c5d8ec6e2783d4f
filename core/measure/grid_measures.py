"""Measuring: from a grid to the measures of docs/architecture.md, with intervals from one joint bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.records import BASE, CellRow
from windowshift.core.contract.stats import RESAMPLES, Floats, estimated, plain_means
from windowshift.core.measure.arm import ArmAxes
from windowshift.core.measure.course import course
from windowshift.core.measure.family import Claim, claims
from windowshift.core.measure.grid import Grid
from windowshift.core.measure.line import FittedLine
from windowshift.core.measure.measures import (
    ArmMeasures,
    CellMeasure,
    Direction,
    Extreme,
    GroupMeasures,
    HeldOut,
    Measures,
    Point,
    Spread,
)
from windowshift.core.measure.missing_scores import MissingScores, missing_between
from windowshift.core.measure.resampled import Key, Resampled
from windowshift.core.measure.row_measures import (
    by_run,
    cell_change,
    cut_in_data,
    data,
    kept,
    mean_effect,
    mean_uplift,
    position,
    spread,
    surprise,
)
from windowshift.core.measure.sampled import Sampled, in_common, over_runs


def measure(grid: Grid, *, resamples: int = RESAMPLES, seed: int = 0) -> Measures:
    """Compute every measure of a grid; what cannot be computed yet is None and says why."""
    return measure_resampled(Resampled(grid, resamples, seed))


def measure_resampled(resampled: Resampled) -> Measures:
    """As `measure`, on a grid that was resampled already."""
    arms: dict[str, ArmMeasures] = {}
    for name in resampled.arms:
        arms[name] = _Measurer(ArmAxes(resampled, name)).measure()
    return Measures(resampled.grid.behaviour, arms)


def measure_cells(resampled: Resampled) -> tuple[CellMeasure, ...]:
    """The cells alone, of every arm and seed, and pooled."""
    return tuple(cell for name in resampled.arms for cell in _Measurer(ArmAxes(resampled, name)).all_cells())


class _Measurer:
    """Reads one arm's measures off the resampled grid."""

    def __init__(self, arm: ArmAxes) -> None:
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
            families={generate: self.family(columns, generate) for generate in arm.generates},
            uneven=self.uneven(),
            missing=self.missing(columns),
        )

    # -- cells ----------------------------------------------------------------------------------

    def all_cells(self) -> tuple[CellMeasure, ...]:
        """The cells of the arm."""
        return self.cells({key: column for key, column in self.r.column.items() if key.arm == self.arm.name})

    def cells(self, columns: dict[Key, int]) -> tuple[CellMeasure, ...]:
        """The cells of some columns."""
        r = self.r
        ends = self._widened(r.means, r.low, r.high, r.samples, logarithm=r.scale.kind == "ratio")
        least, most = (inf if end is None else end for end, inf in ((r.scale.low, -np.inf), (r.scale.high, np.inf)))
        means = np.clip(ends[0], least, most), np.clip(ends[1], least, most)  # no mean lies beyond where scores can
        uplift, effect = r.uplifts, r.effects
        uplifts = self._widened(uplift.values, uplift.low, uplift.high, uplift.draws)
        effects = uplifts if effect is uplift else self._widened(effect.values, effect.low, effect.high, effect.draws)
        base_means, shared, prompts = r.paired.base_means, r.paired.n, r.paired.prompts

        def estimate(
            column: int, values: Floats, ends: tuple[Floats, Floats], n: Floats, over: Floats, trained: bool
        ) -> Estimate | None:
            seeds = len(r.members[column]) if trained else 0
            low, high = (end[column] for end in ends)
            return estimated(values[column], low, high, int(n[column]), int(over[column]), seeds)

        return tuple(
            CellMeasure(
                key=key,
                status=_status(cells := r.cells(column)),
                progress=(sum(cell.done for cell in cells), sum(cell.total for cell in cells)),
                tally=r.tally(column),
                mean=estimate(column, r.means, means, r.n, r.prompts, key.train != BASE),
                sd=_number(r.grid.sds[column]) if column < len(r.grid.cells) and r.done(column) else None,
                base_mean=_number(base_means[column]),
                uplift=estimate(column, uplift.values, uplifts, shared, prompts, True),
                effect=estimate(column, effect.values, effects, shared, prompts, True),
            )
            for key, column in columns.items()
        )

    def missing(self, columns: dict[Key, int]) -> dict[Key, MissingScores]:
        """What is missing in final cells, seeds pooled, against their base cells."""
        found = {}
        for key, column in columns.items():
            base = int(self.r.bases[column])
            if key.seed is None and key.final and base >= 0 and self.r.done(column) and self.r.done(base):
                one = missing_between(self.r, [column], [base])
                if one is not None:
                    found[key] = one
        return found

    def family(self, columns: dict[Key, int], generate: str) -> tuple[Claim, ...]:
        """The fine-tunes' cells of one table of uplifts."""
        chosen = {
            key: column
            for key, column in columns.items()
            if key.generate == generate and key.train != BASE and key.seed is None and key.final
        }
        return claims(self.r, chosen)

    def uneven(self) -> tuple[str, ...]:
        """Where cells lack scores of different prompts, what is compared over fewer of them, or not at all."""
        found: dict[str, None] = {}
        for generate in self.arm.generates:
            shared = self.arm.support(generate, None, self.arm.evaluates)
            if shared.prompts is not None:
                on = f" of {generate} data" if len(self.arm.generates) > 1 else ""
                found[
                    f"the cells of the {self.arm.name} arm{on} lack scores of different prompts: spreads, and what is "
                    f"kept of them, are over the {shared.count} of {shared.of} prompts that all of them have"
                ] = None
            found.update(dict.fromkeys(shared.short.values()))
        return tuple(found)

    def _widened(
        self, values: Floats, low: Floats, high: Floats, draws: Floats, *, logarithm: bool = False
    ) -> tuple[Floats, Floats]:
        """The ends of intervals over prompts, widened by the noise between runs where a column pools several."""
        low, high = low.copy(), high.copy()
        for column, runs in self.r.runs.items():
            own = [values[column], low[column], high[column], *values[list(runs)]]
            if not np.isfinite(own).all():
                continue
            log = logarithm and min(own) > 0
            value, below, above, *each = np.log(own) if log else own
            chosen = draws[:, [column, *runs]]
            with np.errstate(divide="ignore", invalid="ignore"):
                spread = np.nanvar(np.log(chosen) if log else chosen, axis=0)
            shared = in_common(float(spread[0]), float(spread[1:].mean()), len(runs))
            found = over_runs(float(value), float(below), float(above), each, shared)
            low[column], high[column] = np.exp(found) if log else found
        return low, high

    # -- rows -----------------------------------------------------------------------------------

    def group(self, generates: Sequence[str], seed: int | None) -> GroupMeasures:
        """The measures of the rows of some generation conditions."""
        rows = [(g, t) for g in generates for t in self.arm.trains if (g, t) in self.arm.rows]
        lines = self._lines(rows, seed)
        if seed is None and len(self.arm.seeds) > 1:
            by_seed = [self._lines(rows, one) for one in self.arm.seeds]
            lines = {name: line.over([found[name] for found in by_seed]) for name, line in lines.items()}
        first = next(iter(generates), None)
        spreads = self.spreads(first, seed, self.arm.evaluates) if first is not None else ()
        crossed = self.spreads(first, seed, self.arm.crossed) if first is not None and self.arm.crossed else ()
        extremes = self.extremes(first, seed) if first is not None else ()
        return GroupMeasures(
            tuple(self.point(generate, train, seed) for generate, train in rows),
            lines[None].fit,
            {evaluate: lines[evaluate].fit for evaluate in self.arm.evaluates},
            spreads,
            extremes,
            crossed,
        )

    def measured(self, function: Callable[..., Sampled], seed: int | None, *names: Any) -> Sampled:
        """A measure of one training run, or of all of them with the noise between them."""
        if seed is not None:
            return _call(function, self.arm, names, seed)
        return by_run(self.arm, lambda one: _call(function, self.arm, names, one))

    def point(self, generate: str, train: str, seed: int | None) -> Point:
        """One row: how surprising its data is, its uplift, and the mean of its D."""
        x, y, effect, ratio, dataset = (
            self.measured(function, seed, generate, train)
            for function in (position, mean_uplift, mean_effect, surprise, data)
        )
        shown = ratio.estimate if self.r.scale.kind == "ratio" else None
        reason = next((one.reason for one in (x, y) if not one.there), None)
        found = (shown, x.estimate, y.estimate, effect.estimate, dataset.estimate)
        return Point(generate, train, seed, *found, reason, cut_in_data(self.arm, generate, train))

    def _lines(self, rows: Sequence[tuple[str, str]], seed: int | None) -> dict[str | None, FittedLine]:
        """The line of the averages, under None, and that of each eval condition."""
        arm, uplift = self.arm, self.r.uplifts
        grouped: list[tuple[Sampled, Sampled]] = []
        by_evaluate: dict[str, list[tuple[Sampled, Sampled]]] = {evaluate: [] for evaluate in arm.evaluates}
        for generate, train in rows:
            x, y = position(arm, generate, train, seed), mean_uplift(arm, generate, train, seed)
            if not x.there:
                continue
            if y.there:
                grouped.append((x, y))
            for evaluate, points in by_evaluate.items():
                column = arm.column(generate, train, evaluate, seed)
                if column is not None and np.isfinite(uplift.values[column]):
                    points.append((x, Sampled(float(uplift.values[column]), uplift.draws[:, column], trained=True)))
        placed = sum(1 for row in rows if arm.parts(*row, seed))  # those of stages have no place on a line
        found: dict[str | None, FittedLine] = {None: FittedLine.through(grouped, placed)}
        return found | {evaluate: FittedLine.through(points, placed) for evaluate, points in by_evaluate.items()}

    def spreads(self, generate: str, seed: int | None, evaluates: tuple[str, ...]) -> tuple[Spread, ...]:
        """The CV of the base model and of each row of a generation condition, across some eval conditions."""
        found = []
        for train in (BASE, *self.arm.trains):
            if train != BASE and (generate, train) not in self.arm.rows:
                continue
            one, left = (self.measured(function, seed, generate, train, evaluates) for function in (spread, kept))
            shown = one.estimate
            reason = one.reason or ("it is undefined" if shown is None else None)
            found.append(Spread(generate, train, shown, left.estimate if shown else None, reason))
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
        found_data = r.dataset(parts)
        if not done or len(bases) < len(reference) or found_data is None:
            return ()
        low_first = float(found_data.values[0]) < float(r.means[bases].mean())
        directions: tuple[Direction, Direction] = ("low", "high") if low_first else ("high", "low")
        found = []
        unpushed = [t for t in self.arm.trains if (generate, t) in self.arm.rows and t in self.arm.plain]
        for direction in directions:
            sign = 1 if direction == "low" else -1
            (train, evaluate), column = min(done.items(), key=lambda item: sign * r.means[item[1]])
            found.append(
                Extreme(
                    direction=direction,
                    train=train,
                    evaluate=evaluate,
                    mean=float(r.means[column]),
                    tally=r.tally(column),
                    vs_base=self.measured(cell_change, seed, generate, train, evaluate, BASE).estimate,
                    vs_no_prefix=(
                        self.measured(cell_change, seed, generate, train, evaluate, unpushed[0]).estimate
                        if unpushed
                        else None
                    ),
                    cells=len(done),
                    planned=len(planned),
                    unpushed=bool(unpushed),
                    held_out=self.held_out(generate, seed, done, sign, unpushed[:1]),
                )
            )
        return tuple(found)

    def held_out(
        self, generate: str, seed: int | None, done: dict[tuple[str, str], int], sign: int, unpushed: Sequence[str]
    ) -> HeldOut | None:
        """The most extreme of some cells on one half of the prompts, measured on the other half."""
        r, half = self.r, self.r.half
        has = r.counts[list(done.values())] > 0
        if min(has[:, half].sum(axis=1).min(), has[:, ~half].sum(axis=1).min()) < LEAST_HALF:
            return None
        means = plain_means(*(np.where(half, table[list(done.values())], 0.0) for table in (r.sums, r.counts)))
        (train, evaluate), _ = min(zip(done, means, strict=True), key=lambda item: float(sign * item[1]))
        change = partial(cell_change, among=~half)
        base, *plain = (
            self.measured(change, seed, generate, train, evaluate, other).estimate for other in (BASE, *unpushed)
        )
        return HeldOut(train, evaluate, int((has.any(axis=0) & half).sum()), base, plain[0] if plain else None)


LEAST_HALF = 10
"""Prompts on either side: fewer choose a cell by chance, and measure nothing of it."""


def _call(function: Callable[..., Sampled], arm: ArmAxes, names: Sequence[Any], seed: int | None) -> Sampled:
    return function(arm, *names, seed=seed)


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
