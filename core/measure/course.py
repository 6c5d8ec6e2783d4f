"""The course of training: mean and spread at each checkpoint."""

from __future__ import annotations

from windowshift.core.contract.records import BASE
from windowshift.core.contract.stats import estimate
from windowshift.core.measure.arm import Arm
from windowshift.core.measure.measures import CoursePoint


def course(arm: Arm) -> tuple[CoursePoint, ...]:
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


def _point(arm: Arm, row: tuple[str, str], step: int, columns: dict[str, int | None]) -> CoursePoint:
    r = arm.resampled
    done = {evaluate: column for evaluate, column in columns.items() if column is not None}
    means = {
        evaluate: one
        for evaluate, column in done.items()
        if (one := estimate(float(r.means[column]), r.samples[:, column], int(r.n[column])))
    }
    if len(done) < len(columns):
        return CoursePoint(*row, step, None, None, means)
    index = list(done.values())
    mean = estimate(float(r.means[index].mean()), r.samples[:, index].mean(axis=1), int(r.n[index].sum()))
    value = float(r.scale.spread(r.means[index]))
    cv = estimate(value, r.scale.spread(r.samples[:, index]), len(index)) if len(index) > 1 else None
    return CoursePoint(*row, step, mean, cv, means)
