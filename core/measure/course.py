"""The course of training: mean and spread at each checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.records import BASE
from windowshift.core.contract.stats import Means
from windowshift.core.measure.arm import ArmAxes
from windowshift.core.measure.measures import CoursePoint
from windowshift.core.measure.resampled import Resampled
from windowshift.core.measure.sampled import Sampled


def course(arm: ArmAxes) -> tuple[CoursePoint, ...]:
    """Mean and CV by step, from the base model (step 0) on; seeds pooled.

    Only rows that were evaluated at checkpoints have a course, and every step of it is over the eval
    conditions that the checkpoints have. A step whose cells are not all done has None.
    """
    r = arm.resampled
    keys = [key for key in r.column if key.arm == arm.name and key.seed is None and key.train != BASE]
    found = []
    for row in sorted(arm.rows, key=lambda row: (arm.generates.index(row[0]), arm.trains.index(row[1]))):
        own = [key for key in keys if (key.generate, key.train) == row]
        evaluates = [e for e in arm.evaluates if any(not key.final and key.evaluate == e for key in own)]
        if not evaluates:
            continue
        found.append(_point(arm, row, 0, {e: arm.column("", BASE, e, None) for e in evaluates}))
        for step in sorted({key.step for key in own}):
            columns = {key.evaluate: r.column[key] for key in own if key.step == step}
            done = {e: column if r.done(column := columns.get(e)) else None for e in evaluates}
            found.append(_point(arm, row, step, done))
    return tuple(found)


def _point(arm: ArmAxes, row: tuple[str, str], step: int, columns: dict[str, int | None]) -> CoursePoint:
    r = arm.resampled
    done = {evaluate: column for evaluate, column in columns.items() if column is not None}
    trained = step > 0
    means: dict[str, Estimate] = {}
    for evaluate, column in done.items():
        one = Sampled(
            float(r.means[column]), r.samples[:, column], int(r.n[column]), int(r.prompts[column]), trained,
            ends=(float(r.low[column]), float(r.high[column])), runs=_runs(r, column),
        ).estimate  # fmt: skip
        if one is not None:
            means[evaluate] = one
    if len(done) < len(columns):
        return CoursePoint(*row, step, None, None, means)
    index = list(done.values())

    def mean(found: Means) -> Sampled:
        draws = found.draws.mean(axis=1)
        return Sampled(float(found.values.mean()), draws, int(found.n.sum()), int(found.prompts.min()), trained)

    def spread(found: Means) -> Sampled:
        value, draws = float(r.scale.spread(found.values)), r.scale.spread(found.draws)
        return Sampled(value, draws, len(index), int(found.prompts.min()), trained, 0.0, leans=True)

    return CoursePoint(
        *row,
        step,
        _over_runs(r, index, mean).estimate,
        _over_runs(r, index, spread).estimate if len(index) > 1 else None,
        means,
    )


def _over_runs(r: Resampled, columns: list[int], measured: Callable[[Means], Sampled]) -> Sampled:
    """A measure of some cells, with that of each training run where they pool several."""
    several = [r.runs.get(column, ()) for column in columns]
    found = measured(r.over(columns))
    if not several or not several[0] or len({len(runs) for runs in several}) > 1:
        return found
    return replace(found, runs=tuple(measured(r.over(list(own))) for own in zip(*several, strict=True)))


def _runs(r: Resampled, column: int) -> tuple[Sampled, ...]:
    return tuple(Sampled(float(r.means[run]), r.samples[:, run], int(r.n[run])) for run in r.runs.get(column, ()))
