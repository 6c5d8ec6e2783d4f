"""Experiments side by side: the same grid on two backends or models, number by number with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.number_format import NumberFormat
from windowshift.core.contract.records import BASE, Behaviour
from windowshift.core.measure.measures import ArmMeasures
from windowshift.core.report.page import Block, Heading, Item, Line, Table, shown
from windowshift.core.report.report import Report

MeasureRow = tuple[str, tuple[Estimate | None, ...], NumberFormat]
"""A label, the number of each experiment, and how it is written."""
PLAIN = NumberFormat(2)
Arms = Sequence[ArmMeasures | None]


def beside_blocks(reports: Sequence[Report]) -> list[Block]:
    """The measures and the cells of every arm, and matched doses: a column for each experiment.

    Raises:
        SpecError: they measure different behaviours.
    """
    parts, behaviour = _arms(reports), reports[0].behaviour
    rate = behaviour.scale.kind == "rate"
    names = tuple(report.experiment.name for report in reports)
    blocks: list[Block] = [Heading(" beside ".join(names), 1)]
    for report in reports:
        row = report.experiment
        cost = "" if row.usd is None else f", {row.usd:.2f} USD"
        done = f"{row.cells_done}/{row.cells_total} cells"
        label = f"{row.model}{' (rehearsal model)' if row.rehearsal else ''}"
        blocks.append(Line(f"{row.name}: {label}, backend {row.backend}, {done}{cost}"))
    for name, arms in parts.items():
        which = f", {name} arm" if len(parts) > 1 else ""
        blocks += [
            Heading(f"Measures ({behaviour.name}){which}"),
            _table("measure", names, _measures(arms, behaviour)),
            Heading(f"{behaviour.name}: {behaviour.mean_label}{which}" if rate else f"Mean {behaviour.name}{which}"),
            _table("cell", names, _cells(arms, behaviour)),
        ]
    doses = _doses(reports)
    if doses:
        blocks += [
            Heading("Matched doses: the alpha at which the base model shows a prefix group's mean"),
            _table("vector and group", names, doses),
        ]
    for note in dict.fromkeys(note for report in reports for note in report.notes):
        blocks.append(Line(note, "bold"))
    return blocks


def beside_json(reports: Sequence[Report]) -> dict[str, Any]:
    """As JSON: every row with its arm, and one value (or null) for each experiment.

    Raises:
        SpecError: they measure different behaviours.
    """
    parts, behaviour = _arms(reports), reports[0].behaviour
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
        "behaviour": behaviour.name,
        "scale": behaviour.scale.to_json(),
        "measures": [
            {"arm": name} | _json("measure", row) for name, arms in parts.items() for row in _measures(arms, behaviour)
        ],
        "cells": [
            {"arm": name} | _json("cell", row) for name, arms in parts.items() for row in _cells(arms, behaviour)
        ],
        "doses": [_json("dose", row) for row in _doses(reports)],
    }


def _arms(reports: Sequence[Report]) -> dict[str, Arms]:
    """The arms that there are, by name; None for an experiment that has not got one."""
    scales = {report.behaviour.scale for report in reports}
    behaviours = {report.behaviour.name for report in reports}
    if len(behaviours) == 1 and len(scales) > 1:
        raise SpecError(
            f"these experiments measure '{behaviours.pop()}' on different scales: run the older one's spec again, "
            "which reuses its results"
        )
    if len(behaviours) > 1:
        raise SpecError(
            f"these experiments measure different behaviours ({', '.join(sorted(behaviours))}): name one with -b"
        )
    names = dict.fromkeys(name for report in reports for name in report.measures.arms)
    return {name: [report.measures.arms.get(name) for report in reports] for name in names}


def _measures(arms: Arms, behaviour: Behaviour) -> list[MeasureRow]:
    """Slope, R², the spread of each row over its own arm's conditions and the other's, and the extreme cell."""
    wholes = [arm.whole if arm else None for arm in arms]
    extremes = [next(iter(whole.extremes), None) if whole else None for whole in wholes]
    own = [{spread.train: spread.value for spread in whole.spreads} if whole else {} for whole in wholes]
    crossed = [{spread.train: spread.value for spread in whole.cross_spreads} if whole else {} for whole in wholes]
    words = behaviour.scale.words
    change = f", {words.change.strip()}" if words.two else f" {words.change.strip()}".rstrip()
    rows: list[MeasureRow] = [
        ("grouped slope", tuple(whole.grouped.slope if whole else None for whole in wholes), PLAIN),
        ("predicted R²", tuple(whole.grouped.predicted if whole else None for whole in wholes), PLAIN),
    ]
    for spreads, which in ((own, ""), (crossed, ", crossed")):
        trains = dict.fromkeys(train for spread in spreads for train in spread)
        rows += [
            (f"{words.spread} {train}{which}", tuple(spread.get(train) for spread in spreads), words.spread_format)
            for train in trains
        ]
    against = (
        ("base", tuple(extreme.vs_base if extreme else None for extreme in extremes)),
        ("no_prefix", tuple(extreme.vs_no_prefix if extreme else None for extreme in extremes)),
    )
    return [*rows, *((f"extreme, vs {name}{change}", values, words.change_format) for name, values in against)]


def _cells(arms: Arms, behaviour: Behaviour) -> list[MeasureRow]:
    """The mean of every final cell that one of them has, in the order of the first."""
    means = [
        {
            (cell.key.generate, cell.key.train, cell.key.evaluate): cell.mean
            for cell in (arm.cells if arm else ())
            if cell.key.final or cell.key.train == BASE
        }
        for arm in arms
    ]
    keys = list(dict.fromkeys(key for found in means for key in found))
    return [
        (
            f"{f'{generate}: ' if generate else ''}{train} → {evaluate}",
            tuple(found.get(key) for found in means),
            behaviour.scale.words.value_format,
        )
        for key in keys
        for generate, train, evaluate in (key,)
    ]


def _doses(reports: Sequence[Report]) -> list[MeasureRow]:
    """The alphas that match prefix groups, None out of reach; `n` is that of the group's mean."""
    found: list[dict[str, Estimate | None]] = []
    for report in reports:
        doses = {}
        for match in report.steering.matches:
            tokens = "" if match.tokens == "all" else f" on {match.tokens} tokens"
            alpha = match.alpha
            doses[f"{match.vector} as {match.group}{tokens}"] = (
                None if alpha is None else Estimate(alpha, match.alpha_low, match.alpha_high, match.target.n)
            )
        found.append(doses)
    names = dict.fromkeys(name for doses in found for name in doses)
    return [(name, tuple(doses.get(name) for doses in found), PLAIN) for name in names]


def _table(corner: str, names: tuple[str, ...], rows: Sequence[MeasureRow]) -> Table:
    return Table(
        (corner, *names),
        tuple((Item(label), *(Item(shown(value, form)) for value in values)) for label, values, form in rows),
    )


def _json(what: str, row: MeasureRow) -> dict[str, Any]:
    label, values, _ = row
    found = [None if one is None else {"value": one.value, "ci95": [one.low, one.high], "n": one.n} for one in values]
    return {what: label, "values": found}
