"""Experiments side by side: the same grid on two backends or models, number by number with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from windowshift.core.errors import SpecError
from windowshift.core.measures import ArmMeasures
from windowshift.core.records import BASE
from windowshift.core.report import Report
from windowshift.core.report_page import Block, Heading, Item, Line, Table, with_interval
from windowshift.core.stats import Estimate

ARM = "prefix"
Row = tuple[str, tuple[Estimate | None, ...]]


def beside_blocks(reports: Sequence[Report]) -> list[Block]:
    """The measures and the cells that the experiments share, a column each.

    Raises:
        SpecError: they measure different behaviours.
    """
    arms = _arms(reports)
    names = tuple(report.experiment.name for report in reports)
    blocks: list[Block] = [Heading(" beside ".join(names), 1)]
    for report in reports:
        row = report.experiment
        cost = "" if row.usd is None else f", {row.usd:.2f} USD"
        done = f"{row.cells_done}/{row.cells_total} cells"
        label = f"{row.model}{' (rehearsal model)' if row.rehearsal else ''}"
        blocks.append(Line(f"{row.name}: {label}, backend {row.backend}, {done}{cost}"))
    blocks += [
        Heading(f"Measures ({reports[0].behaviour.name})"),
        _table("measure", names, _measures(arms), _two_decimals),
    ]
    blocks += [Heading(f"Mean {reports[0].behaviour.name}"), _table("cell", names, _cells(arms), with_interval)]
    for note in dict.fromkeys(note for report in reports for note in report.notes):
        blocks.append(Line(note, "bold"))
    return blocks


def beside_json(reports: Sequence[Report]) -> dict[str, Any]:
    """As JSON: every row with one value (or null) for each experiment.

    Raises:
        SpecError: they measure different behaviours.
    """
    arms = _arms(reports)
    return {
        "experiments": [
            {
                "name": report.experiment.name,
                "model": report.experiment.model,
                "rehearsal": report.experiment.rehearsal,
                "backend": report.experiment.backend,
                "usd": report.experiment.usd,
                "cells": {"done": report.experiment.cells_done, "total": report.experiment.cells_total},
            }
            for report in reports
        ],
        "behaviour": reports[0].behaviour.name,
        "measures": [_json("measure", row) for row in _measures(arms)],
        "cells": [_json("cell", row) for row in _cells(arms)],
    }


def _arms(reports: Sequence[Report]) -> list[ArmMeasures]:
    names = {report.behaviour.name for report in reports}
    if len(names) > 1:
        raise SpecError(
            f"these experiments measure different behaviours ({', '.join(sorted(names))}): name one with -b"
        )
    found = []
    for report in reports:
        arm = report.measures.arms.get(ARM)
        if arm is None:
            raise SpecError(f"experiment '{report.experiment.name}' has no prefix arm to put beside another one")
        found.append(arm)
    return found


def _measures(arms: Sequence[ArmMeasures]) -> list[Row]:
    """Slope, R², the spread of each row and the extreme cell."""
    trains = list(dict.fromkeys(spread.train for arm in arms for spread in arm.whole.spreads))
    spreads = [{spread.train: spread.value for spread in arm.whole.spreads} for arm in arms]
    extremes = [next(iter(arm.whole.extremes), None) for arm in arms]
    return [
        ("grouped slope", tuple(arm.whole.grouped.slope for arm in arms)),
        ("grouped R²", tuple(arm.whole.grouped.r2 for arm in arms)),
        *((f"CV {train}", tuple(spread.get(train) for spread in spreads)) for train in trains),
        ("extreme, vs base %", tuple(extreme.vs_base if extreme else None for extreme in extremes)),
        ("extreme, vs no_prefix %", tuple(extreme.vs_no_prefix if extreme else None for extreme in extremes)),
    ]


def _cells(arms: Sequence[ArmMeasures]) -> list[Row]:
    """The mean of every final cell that one of them has, in the order of the first."""
    means = [
        {
            (cell.key.generate, cell.key.train, cell.key.evaluate): cell.mean
            for cell in arm.cells
            if cell.key.final or cell.key.train == BASE
        }
        for arm in arms
    ]
    keys = list(dict.fromkeys(key for found in means for key in found))
    return [
        (f"{f'{generate}: ' if generate else ''}{train} → {evaluate}", tuple(found.get(key) for found in means))
        for key in keys
        for generate, train, evaluate in (key,)
    ]


def _two_decimals(one: Estimate | None) -> str:
    return with_interval(one, 2)


def _table(corner: str, names: tuple[str, ...], rows: Sequence[Row], show: Any) -> Table:
    return Table(
        (corner, *names), tuple((Item(label), *(Item(show(value)) for value in values)) for label, values in rows)
    )


def _json(what: str, row: Row) -> dict[str, Any]:
    label, values = row
    shown = [None if one is None else {"value": one.value, "ci95": [one.low, one.high], "n": one.n} for one in values]
    return {what: label, "values": shown}
