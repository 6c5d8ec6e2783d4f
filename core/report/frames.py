"""Tables for notebooks: an experiment's cells, rows, points, fits and completions as pandas DataFrames.

Every estimate has three columns: its value, and `_low` and `_high`, the ends of its 95 % interval (`low` and `high`
alone for the mean of a cell). What is missing is NaN (None in a column of text), and where there is a `reason` column
it says why. A frame without a row has its columns all the same. pandas is imported late.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.records import BASE
from windowshift.core.measure.measures import ArmMeasures, CellMeasure, Fit, GroupMeasures
from windowshift.core.report.export import COLUMNS, export_rows
from windowshift.core.report.report import Report
from windowshift.core.store.reader import Reader

if TYPE_CHECKING:
    from pandas import DataFrame


def _estimates(*names: str) -> tuple[str, ...]:
    return tuple(column for name in names for column in (name, f"{name}_low", f"{name}_high"))


CELLS = (
    *("arm", "generate", "train", "evaluate", "seed", "step", "final", "status", "done", "total"),
    *("n", "prompts", "truncated", "missing", "failed", "mean", "low", "high", "sd", "base_mean"),
    *_estimates("uplift", "effect", "restricted_mean"),
)
ROWS = (
    *("arm", "generate", "train", "cells_done", "cells", "n", "truncated", "missing", "failed"),
    *_estimates("data_mean", "train_mean_ratio", "x", "y", "effect"),
    "spread_is",
    *_estimates("spread", "spread_kept", "cross_spread", "cross_spread_kept"),
    "reason",
)
POINTS = (
    *("arm", "generate", "train", "seed"),
    *_estimates("train_mean_ratio", "x", "y", "effect", "data_mean"),
    *("truncated", "reason"),
)
FITS = (
    *("arm", "generate", "seed", "evaluate", "points", "rows"),
    *_estimates("slope", "scatter", "corrected", "intercept", "predicted", "r2"),
    "reason",
)
DOSES = (
    *("vector", "tokens", "layer", "unit", "asked"),
    *_estimates("alpha", "kl", "mean", "against"),
    *("dose", "refined_on", "n", "prompts", "truncated", "verdict", "reason"),
)
DRIFTS = (
    *("arm", "generate", "train", "evaluate", "vector", "tokens", "layer", "in_use", "prompts", "unread", "seeds"),
    *_estimates("base", "tuned", "shift", "shift_over_rms"),
    *("base_rms", "reason"),
)
ALIGNMENTS = (
    *("arm", "generate", "train", "vector", "layer", "examples", "unread"),
    *_estimates("cosine"),
    *("null_low", "null_high", "directions", "p", "reason"),
)
WATCHED = (
    *("arm", "generate", "train", "group", "step", "texts", "unread", "seeds"),
    *_estimates("logprob_a_token", "change"),
    "reason",
)
_COUNTS = ("n", "prompts", "truncated", "missing", "failed", "cells_done", "cells", "points", "rows")
_WHOLE = (
    "seed",
    "step",
    "layer",
    "unread",
    "seeds",
    "directions",
    "examples",
    "texts",
    "refined_on",
    "done",
    "total",
    *_COUNTS,
)


def cells(report: Report) -> DataFrame:
    """One row a cell and seed, base cells too.

    Columns: `arm`, `generate` (None for base cells), `train`, `evaluate`, `seed`, `step` (training examples; 0 for base
    cells), `final`, `status`, `done` of `total` completions, `n` scored ones of so many `prompts`, `truncated`,
    `missing`, `failed`; `mean`
    with `low` and `high`, `sd`, `base_mean` (over the same prompts); `uplift` on the scale on which cells are fitted,
    `effect` as it is shown: the same, but for rates; `restricted_mean`, by Kaplan-Meier up to `report.limit`, where
    completions that were cut off have lower bounds for scores.
    """
    cells = (cell for arm in report.measures.arms.values() for cell in arm.seed_cells)
    return _frame(CELLS, (_cell(cell, report.restricted.get(cell.key)) for cell in cells))


def rows(report: Report) -> DataFrame:
    """One row a row of the grid, a generation and a train condition, over the arm's own eval conditions; seeds pooled.

    Columns: `arm`, `generate`, `train` (`base` for the base model, whose spreads the others are compared with),
    `cells_done` of `cells` eval cells, `n`, `truncated`, `missing` and `failed` completions in them; `data_mean` (of
    D), `train_mean_ratio`, `x` and `y` (as in `points`), `effect` (averaged over eval conditions), `spread` of the
    means across eval conditions, which `spread_is` names (CV, or sd where means do not compare by ratio), `spread_kept`
    (over that of the base model), `cross_spread` and `cross_spread_kept` (the same across the other arm's), `reason`.
    """
    return _frame(ROWS, (row for arm in report.measures.arms.values() for row in _rows(arm)))


def points(report: Report) -> DataFrame:
    """One row a point of the grouped fits: seeds pooled (`seed` is missing), then each seed's where there are several.

    Columns: `arm`, `generate`, `train`, `seed`, `train_mean_ratio` (None where means do not compare by ratio), `x`
    (how surprising D is under the train condition) and `y` (the uplift averaged over eval conditions), both on the
    link scale, `effect` (the same average as it is shown), `data_mean` (of D), completions
    `truncated` behind `x` and `data_mean` (D's, and the base model's under the train condition), `reason`.
    """
    found = []
    for arm in report.measures.arms.values():
        for group in (arm.whole, *arm.by_seed.values()):
            for point in group.points:
                row: dict[str, Any] = {"arm": arm.arm, "generate": point.generate, "train": point.train}
                row |= {"seed": point.seed, "truncated": point.truncated, "reason": point.reason}
                row |= _numbers("train_mean_ratio", point.ratio) | _numbers("x", point.x) | _numbers("y", point.y)
                found.append(row | _numbers("effect", point.effect) | _numbers("data_mean", point.data))
    return _frame(POINTS, found)


def fits(report: Report) -> DataFrame:
    """One row a fit: grouped ones, where `evaluate` is missing, and one for each eval condition.

    Columns: `arm`, `generate` and `seed` (missing where all are in it), `evaluate`, `points` used of `rows`, `slope`,
    `scatter` (the same slope, with the interval that the scatter of the points gives it, never narrower than that of
    `slope`), `corrected` (without the attenuation by noise in x), `intercept`, `predicted` (R² of each row from the
    line through the others), `r2` (of the points, without an interval), `reason`.
    """
    found = []
    for arm in report.measures.arms.values():
        groups: list[tuple[str | None, int | None, GroupMeasures]] = [(None, None, arm.whole)]
        groups += [(generate, None, group) for generate, group in arm.by_generate.items()]
        groups += [(None, seed, group) for seed, group in arm.by_seed.items()]
        for generate, seed, group in groups:
            lines: list[tuple[str | None, Fit]] = [(None, group.grouped), *group.by_evaluate.items()]
            for evaluate, fit in lines:
                row: dict[str, Any] = {"arm": arm.arm, "generate": generate, "seed": seed, "evaluate": evaluate}
                row |= {"points": fit.points, "rows": fit.rows, "reason": fit.reason}
                row |= _numbers("slope", fit.slope) | _numbers("scatter", fit.scatter)
                row |= _numbers("corrected", fit.corrected) | _numbers("intercept", fit.intercept)
                found.append(row | _numbers("predicted", fit.predicted) | _numbers("r2", fit.r2))
    return _frame(FITS, found)


def doses(report: Report) -> DataFrame:
    """One row a steering dose that was solved for, matched or of equal KL.

    Columns: `vector`, `tokens` that are pushed, `layer`, `unit` (`match` or `iso_kl`), `asked` (the prefix group, or
    the nats with the sign of the push), `alpha` (missing where it is out of reach; an end of its interval that lies
    beyond what was measured is missing too), `kl` (of `iso_kl`: 95th percentile over tokens of KL(steered || base),
    in nats), `mean` of the base model under the dose and `against` what it is compared with (`match`), `dose` (alpha
    in units of the residual stream), `refined_on` so many development prompts, `n` completions behind `mean`,
    `truncated` of them, `prompts` that KL was measured on, `verdict` (`matched`, `off` or `open`), `reason`.
    """
    found: list[dict[str, Any]] = []
    for one in report.steering.matches:
        row = {"vector": one.vector, "tokens": one.tokens, "layer": one.layer, "unit": "match", "asked": one.group}
        row |= {"alpha": one.alpha, "alpha_low": one.alpha_low, "alpha_high": one.alpha_high, "dose": one.dose}
        row |= {"refined_on": one.refined_on, "verdict": one.verdict, "truncated": one.truncated}
        row |= {"n": one.reached.n if one.reached else 0, "reason": "out of reach" if one.alpha is None else None}
        found.append(row | _numbers("mean", one.reached) | _numbers("against", one.ratio))
    for dose in report.steering.iso_kl:
        row = {"vector": dose.vector, "tokens": dose.tokens, "layer": dose.layer, "unit": "iso_kl"}
        row |= {"asked": f"{dose.nats:+g}", "dose": dose.dose, "prompts": dose.prompts, "reason": dose.problem}
        row |= {"alpha": dose.alpha, "alpha_low": dose.alpha_low, "alpha_high": dose.alpha_high}
        row |= {"n": dose.reached.n if dose.reached else 0, "truncated": dose.truncated}
        found.append(row | _numbers("kl", dose.kl) | _numbers("mean", dose.reached))
    return _frame(DOSES, found)


def drifts(report: Report) -> DataFrame:
    """One row a layer of each drift, fine-tune against base model along a vector (docs/inside.md).

    Columns: the row of the grid, `evaluate`, `vector`, `tokens`, `layer` (missing where nothing was read, with the
    `reason`), whether it is the one `in_use`, `prompts` read in both models, `unread` ones, `seeds`; mean projections
    `base` and `tuned`, their difference `shift`, `shift_over_rms`, and `base_rms`.
    """
    found = []
    for one in report.inside.drifts:
        row: dict[str, Any] = {name: getattr(one, name) for name in ("arm", "generate", "train", "evaluate", "vector")}
        row |= {"tokens": one.tokens, "prompts": one.prompts, "unread": one.unread, "seeds": one.seeds}
        row |= {"reason": one.reason or None}
        for at in one.layers:
            numbers = _numbers("base", at.base) | _numbers("tuned", at.tuned) | _numbers("shift", at.shift)
            numbers |= _numbers("shift_over_rms", at.relative)
            found.append(row | numbers | {"layer": at.layer, "in_use": at.layer == one.layer, "base_rms": at.rms})
        if not one.layers:
            found.append(row)
    return _frame(DRIFTS, found)


def alignments(report: Report) -> DataFrame:
    """One row an alignment of D's gradient with a vector (docs/inside.md).

    Columns: the row of the grid, `vector`, `layer`, `examples`, `unread` ones; `cosine`, the ends of the middle 95 % of
    those of random `directions` (`null_low`, `null_high`), `p`, `reason`.
    """
    found = []
    for one in report.inside.alignments:
        low, high = one.null or (None, None)
        row: dict[str, Any] = {name: getattr(one, name) for name in ("arm", "generate", "train", "vector", "layer")}
        row |= {"examples": one.cosine.n if one.cosine else 0, "unread": one.unread, "reason": one.reason or None}
        row |= {"null_low": low, "null_high": high, "directions": one.directions, "p": one.p}
        found.append(row | _numbers("cosine", one.cosine))
    return _frame(ALIGNMENTS, found)


def watched(report: Report) -> DataFrame:
    """One row a moment of each course of watched texts (docs/inside.md).

    Columns: the row of the grid, `group`, `step` (examples seen; missing where nothing was read yet), `texts`, `unread`
    ones, `seeds`; `logprob_a_token`, the mean over texts in nats, and its `change` since before the first step.
    """
    found = []
    for one in report.inside.courses:
        row: dict[str, Any] = {name: getattr(one, name) for name in ("arm", "generate", "train", "group")}
        row |= {"texts": one.texts, "unread": one.unread, "seeds": one.seeds, "reason": one.reason or None}
        for point in one.points:
            numbers = _numbers("logprob_a_token", point.mean) | _numbers("change", point.change)
            found.append(row | numbers | {"step": point.examples})
        if not one.points:
            found.append(row)
    return _frame(WATCHED, found)


def completions(workspace: str | Path, name: str) -> DataFrame:
    """One row a completion of the cells of an experiment; all of them in memory.

    Columns: those of `windowshift export` (`windowshift.core.report.export.COLUMNS`), then one for each behaviour
    with its scores.

    Raises:
        SpecError: there is no such experiment.
        StoreError: the workspace cannot be read.
    """
    import pandas as pd

    with closing(Reader(Path(workspace))) as reader:
        experiment = reader.find_experiment(name)
        columns = [*COLUMNS, *(behaviour.name for behaviour in experiment.behaviours)]
        return pd.DataFrame(list(export_rows(reader, experiment)), columns=columns)


def _cell(cell: CellMeasure, bounded: CellMeasure | None) -> dict[str, Any]:
    key, tally, mean = cell.key, cell.tally, cell.mean
    return {
        "arm": key.arm,
        "generate": None if key.train == BASE else key.generate,
        "train": key.train,
        "evaluate": key.evaluate,
        "seed": key.seed,
        "step": key.step,
        "final": key.final,
        "status": cell.status,
        "done": cell.progress[0],
        "total": cell.progress[1],
        "n": tally.n,
        "prompts": mean.prompts if mean else 0,
        "truncated": tally.truncated,
        "missing": tally.missing,
        "failed": tally.failed,
        "mean": mean.value if mean else None,
        "low": mean.low if mean else None,
        "high": mean.high if mean else None,
        "sd": cell.sd,
        "base_mean": cell.base_mean,
        **_numbers("uplift", cell.uplift),
        **_numbers("effect", cell.effect),
        **_numbers("restricted_mean", bounded.mean if bounded else None),
    }


def _rows(arm: ArmMeasures) -> Iterator[dict[str, Any]]:
    for generate, group in arm.by_generate.items():
        at = {point.train: point for point in group.points}
        crossed = {spread.train: spread for spread in group.cross_spreads}
        for spread in group.spreads:
            point, cross = at.get(spread.train), crossed.get(spread.train)
            members = [
                cell
                for cell in arm.cells
                if cell.key.train == spread.train
                and (spread.train == BASE or cell.key.generate == generate)
                and cell.key.evaluate in arm.evaluates
                and cell.key.final
            ]
            row: dict[str, Any] = {"arm": arm.arm, "generate": generate, "train": spread.train}
            row |= {"cells_done": sum(cell.status == "done" for cell in members), "cells": len(members)}
            for name in ("n", "truncated", "missing", "failed"):
                row[name] = sum(getattr(cell.tally, name) for cell in members)
            row |= _numbers("data_mean", point.data if point else None)
            row |= _numbers("train_mean_ratio", point.ratio if point else None)
            row |= _numbers("x", point.x if point else None) | _numbers("y", point.y if point else None)
            row |= _numbers("effect", point.effect if point else None)
            row["spread_is"] = arm.scale.words.spread
            row |= _numbers("spread", spread.value) | _numbers("spread_kept", spread.kept)
            row |= _numbers("cross_spread", cross.value if cross else None)
            row |= _numbers("cross_spread_kept", cross.kept if cross else None)
            yield row | {"reason": (point.reason if point else None) or spread.reason}


def _frame(columns: Sequence[str], found: Iterable[Mapping[str, Any]]) -> DataFrame:
    import pandas as pd

    made = pd.DataFrame(list(found), columns=list(columns))
    # A column of whole numbers stays one where some are missing; one of numbers is one where all are.
    whole = {name: "Int64" for name in columns if name in _WHOLE}
    texts = {"arm", "generate", "train", "evaluate", "status", "final", "reason", "spread_is"}
    texts |= {"vector", "tokens", "unit", "asked", "verdict"}
    texts |= {"in_use", "group"}
    return made.astype(whole | {name: "float64" for name in columns if name not in whole and name not in texts})


def _numbers(name: str, one: Estimate | None) -> dict[str, float | None]:
    if one is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
