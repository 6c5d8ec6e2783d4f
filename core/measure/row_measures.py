"""The measures of one row of an arm, each with its draws: what reports, comparisons and screens all take.

Every function takes `seed`: one training run, or None for all of them pooled; `by_run` puts both together. A measure
that sets eval conditions side by side (a spread) or base means (`train_mean_ratio`) goes over the prompts that all
cells it is compared with have a score of: were some missing in one cell, its mean would be that of other prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from windowshift.core.contract.confidence import Z, student_t
from windowshift.core.contract.records import BASE
from windowshift.core.contract.stats import Means
from windowshift.core.measure.arm import ArmAxes
from windowshift.core.measure.effect import change
from windowshift.core.measure.resampled import Changes
from windowshift.core.measure.sampled import Sampled, combined

NO_CONDITION = "the arm has no eval condition of its own"
IN_STAGES = "trained in stages: how surprising D is says nothing of a model that was trained before"


def by_run(arm: ArmAxes, measured: Callable[[int | None], Sampled]) -> Sampled:
    """A measure over all training runs, with that of each where there are several."""
    pooled = measured(None)
    if not pooled.there or not pooled.trained or len(arm.seeds) < 2:
        return pooled
    runs = tuple(measured(seed) for seed in arm.seeds)
    return replace(pooled, runs=runs) if all(run.there for run in runs) else pooled


# -- D and the base model ------------------------------------------------------------------------


def data(arm: ArmAxes, generate: str, train: str, seed: int | None) -> Sampled:
    """The mean of a row's D."""
    parts = arm.parts(generate, train, seed)
    found = arm.resampled.dataset(parts)
    if found is None:
        return Sampled(reason=arm.resampled.lacking_data(parts))
    ends = float(found.low[0]), float(found.high[0])
    return Sampled(float(found.values[0]), found.draws[:, 0], int(found.n[0]), int(found.prompts[0]), ends=ends)


def cut_in_data(arm: ArmAxes, generate: str, train: str) -> int:
    """The completions that were cut off behind how surprising D is: D's, and the base model's as it is trained."""
    r, parts = arm.resampled, arm.parts(generate, train, None)
    columns = [r.reference(arm.name, part, None) for part in parts]
    found = {column for column in columns if column is not None}
    return sum(r.grid.data_cut[part] for part in parts) + sum(r.tally(column).truncated for column in found)


def position(arm: ArmAxes, generate: str, train: str, seed: int | None) -> Sampled:
    """How surprising D is under the train condition: the base model's mean against that of D, on the link scale."""
    r, parts = arm.resampled, arm.parts(generate, train, seed)
    if not parts:
        return Sampled(reason=IN_STAGES)
    shared = arm.support_of_base(seed)
    short = shared.reason([r.reference(arm.name, part, seed) for part in parts])
    if short:
        return Sampled(reason=short)
    base = r.base_under(arm.name, parts, seed, shared.prompts)
    found = r.dataset(parts)
    if base is None:
        return Sampled(reason=r.lacking_base(arm.name, parts, seed))
    if found is None:
        return Sampled(reason=r.lacking_data(parts))
    mean, drawn, n, prompts = base
    value = r.scale.linked(mean, n, found.values, found.n)[0]
    draws = r.scale.linked(drawn, np.inf, found.draws[:, 0], np.inf)
    shift = r.data_shift(parts)
    if shift is not None:
        draws = draws - shift
    return Sampled(float(value), draws, int(found.n[0]), prompts)


def surprise(arm: ArmAxes, generate: str, train: str, seed: int | None) -> Sampled:
    """`train_mean_ratio` of a row; where means do not compare by ratio, its position."""
    found = position(arm, generate, train, seed)
    return found.of(np.exp2, floor=0.0) if arm.resampled.scale.kind == "ratio" else found


# -- cells side by side --------------------------------------------------------------------------


def spread(arm: ArmAxes, generate: str, train: str, evaluates: tuple[str, ...] | None, seed: int | None) -> Sampled:
    """CV or sd of a row's means across the arm's own eval conditions, or across `evaluates`."""
    evaluates = arm.evaluates if evaluates is None else evaluates
    found, reason = _means(arm, generate, train, evaluates, seed)
    if found is None:
        return Sampled(reason=reason)
    scale = arm.resampled.scale
    value, draws = scale.spread(found.values), scale.spread(found.draws)
    n, prompts = len(evaluates), int(found.prompts.min())
    return Sampled(float(value), draws, n, prompts, train != BASE, floor=0.0, leans=True)


def kept(arm: ArmAxes, generate: str, train: str, evaluates: tuple[str, ...] | None, seed: int | None) -> Sampled:
    """The spread of a row over that of the base model."""
    evaluates = arm.evaluates if evaluates is None else evaluates
    own = spread(arm, generate, train, evaluates, seed)
    if not own.there:
        return own
    base = spread(arm, generate, BASE, evaluates, seed)
    if not base.there:
        return base
    if not base.value > 0:
        return Sampled(reason=f"the base model's {arm.resampled.scale.words.spread} is 0")
    return own.over(base)


def _means(
    arm: ArmAxes, generate: str, train: str, evaluates: tuple[str, ...], seed: int | None
) -> tuple[Means | None, str]:
    """The means of a row under some eval conditions, over the prompts that all rows have; or why there are none."""
    r = arm.resampled
    if len(evaluates) < 2:
        return None, "a spread needs two eval conditions"
    columns = [arm.column(generate, train, evaluate, seed) for evaluate in evaluates]
    done = [column for column in columns if column is not None]
    if len(done) < len(columns):
        return None, arm.lacking_of(generate, train, evaluates, seed)
    shared = arm.support(generate, seed, evaluates)
    short = shared.reason(done)
    return (None, short) if short else (r.over(done, shared.prompts), "")


# -- against the base model ----------------------------------------------------------------------


def mean_effect(arm: ArmAxes, generate: str, train: str, seed: int | None) -> Sampled:
    """The mean over the arm's own eval conditions of the effect as it is shown."""
    return _average(arm, generate, train, seed, arm.resampled.effects)


def mean_uplift(arm: ArmAxes, generate: str, train: str, seed: int | None) -> Sampled:
    """The same on the link scale."""
    return _average(arm, generate, train, seed, arm.resampled.uplifts)


def _average(arm: ArmAxes, generate: str, train: str, seed: int | None, changes: Changes) -> Sampled:
    reason = arm.lacking_of(generate, train, arm.evaluates, seed) or arm.lacking_of("", BASE, arm.evaluates, seed)
    if reason or not arm.evaluates:
        return Sampled(reason=reason or NO_CONDITION)
    r = arm.resampled
    columns = {evaluate: arm.column(generate, train, evaluate, seed) for evaluate in arm.evaluates}
    for evaluate, column in columns.items():
        if column is None or not np.isfinite(changes.values[column]):
            return Sampled(reason=_undefined(r.paired.prompts[column] if column is not None else 0, evaluate))
    done = [column for column in columns.values() if column is not None]
    prompts = int(r.paired.prompts[done].min())
    draws = changes.draws[:, done].mean(axis=1)
    return Sampled(float(changes.values[done].mean()), draws, int(r.n[done].sum()), prompts, True)


def _undefined(prompts: float, evaluate: str) -> str:
    """Why two done and scored cells have no change on the link scale."""
    if not prompts:
        return f"no prompt has a score under {evaluate} both here and of the base model"
    return f"a mean under {evaluate} is 0, which has no ratio"


def cell_change(
    arm: ArmAxes,
    generate: str,
    train: str,
    evaluate: str,
    against: str,
    seed: int | None,
    among: NDArray[np.bool_] | None = None,
) -> Sampled:
    """A cell against that of another row, or of the base model, under the same condition: the scale's change.

    It is over the prompts that both have a score of; `among` says of which ones (None: of all). Of some, which are few,
    its interval is widened as Student's t is to the normal distribution (Hesterberg 2015, "What Teachers Should Know
    About the Bootstrap", on percentile intervals); those of rates have that already.
    """
    source = "" if against == BASE else generate
    column, other = arm.column(generate, train, evaluate, seed), arm.column(source, against, evaluate, seed)
    if column is None or other is None:
        reason = arm.lacking(generate, train, evaluate, seed) or arm.lacking(source, against, evaluate, seed)
        return Sampled(reason=reason)
    pair = arm.resampled.compared(column, other, among)
    found = change(arm.resampled.scale, pair, trained=True)
    if not found.there:
        return Sampled(reason="the base model's mean is 0" if pair.prompts else "no prompt has a score in both")
    if among is not None and arm.resampled.scale.kind != "rate" and pair.prompts > 1:
        return found.widened(student_t(pair.prompts - 1) / Z)
    return found


def average(parts: Sequence[Sampled], n: int) -> Sampled:
    """The mean of several numbers."""
    return combined(parts, lambda values: np.asarray(values.mean(axis=0)), n=n)
