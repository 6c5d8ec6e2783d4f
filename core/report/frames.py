"""Tables for notebooks: cells, points, fits and completions as pandas DataFrames (imported late)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windowshift.core.contract.stats import Estimate
from windowshift.core.measure.measures import Fit, GroupMeasures
from windowshift.core.report.export import COLUMNS, export_rows
from windowshift.core.report.report import Report, find_experiment
from windowshift.core.store.reader import Reader

if TYPE_CHECKING:
    from pandas import DataFrame


def cells_frame(report: Report) -> DataFrame:
    """One row a cell and seed, as `cells` in the report's JSON; `low` and `high` in place of `ci95`."""
    return _frame(_split(row) for row in report.to_json()["cells"])


def points_frame(report: Report) -> DataFrame:
    """One row a point of the grouped fits: seeds pooled (`seed` missing), then each seed's."""
    rows = []
    for arm in report.measures.arms.values():
        for group in (arm.whole, *arm.by_seed.values()):
            for point in group.points:
                row: dict[str, Any] = {"arm": arm.arm, "generate": point.generate, "train": point.train}
                row["seed"] = point.seed
                row |= _numbers("train_mean_ratio", point.ratio)
                row |= _numbers("x", point.x) | _numbers("y", point.y) | {"reason": point.reason}
                rows.append(row)
    return _frame(rows)


def fits_frame(report: Report) -> DataFrame:
    """One row a fit: `evaluate` is missing for grouped ones, `generate` and `seed` where all are in it."""
    rows = []
    for arm in report.measures.arms.values():
        groups: list[tuple[str | None, int | None, GroupMeasures]] = [(None, None, arm.whole)]
        groups += [(generate, None, group) for generate, group in arm.by_generate.items()]
        groups += [(None, seed, group) for seed, group in arm.by_seed.items()]
        for generate, seed, group in groups:
            fits: list[tuple[str | None, Fit]] = [(None, group.grouped), *group.by_evaluate.items()]
            for evaluate, fit in fits:
                row: dict[str, Any] = {"arm": arm.arm, "generate": generate, "seed": seed, "evaluate": evaluate}
                row |= {"points": fit.points, "rows": fit.rows}
                row |= _numbers("slope", fit.slope) | _numbers("intercept", fit.intercept) | _numbers("r2", fit.r2)
                rows.append(row | {"reason": fit.reason})
    return _frame(rows)


def completions_frame(workspace: Path, name: str) -> DataFrame:
    """One row a completion, with the columns of `windowshift export`; the whole experiment in memory."""
    import pandas as pd

    with closing(Reader(workspace)) as reader:
        experiment = find_experiment(reader, name)
        columns = [*COLUMNS, *(behaviour.name for behaviour in experiment.behaviours)]
        return pd.DataFrame(list(export_rows(reader, experiment)), columns=columns)


def _frame(rows: Iterable[Mapping[str, Any]]) -> DataFrame:
    import pandas as pd

    return pd.DataFrame(list(rows))


def _numbers(name: str, one: Estimate | None) -> dict[str, float | None]:
    if one is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}


def _split(row: dict[str, Any]) -> dict[str, Any]:
    split: dict[str, Any] = {}
    for key, value in row.items():
        if key.endswith("ci95"):
            prefix = key.removesuffix("ci95")
            split[f"{prefix}low"], split[f"{prefix}high"] = value or (None, None)
        else:
            split[key] = value
    return split
