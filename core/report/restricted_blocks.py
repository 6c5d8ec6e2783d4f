"""What the report says of restricted means: the cells again, without what a token limit does to a plain mean."""

from __future__ import annotations

import math
from collections.abc import Iterator

from windowshift.core.contract.records import BASE
from windowshift.core.contract.truncation import counted_dagger
from windowshift.core.measure.measures import ArmMeasures
from windowshift.core.report.half_widths import half_widths
from windowshift.core.report.page import Block, Heading, Item, Line, matrix
from windowshift.core.report.report import Report


def restricted_blocks(report: Report, arm: ArmMeasures, generate: str, width: int | None) -> Iterator[Block]:
    """The restricted means of one table; nothing where nothing in it was cut off."""
    cells = {
        (cell.key.train, cell.key.evaluate): cell
        for cell in arm.cells
        if cell.key.final and (cell.key.train == BASE or cell.key.generate == generate)
    }
    if report.limit is None or not any(cell.tally.truncated for cell in cells.values()):
        return
    form = arm.scale.words.value_format
    on = f", trained on {generate} data" if generate else ""
    upto = f" up to {form.with_unit(report.limit)}" if math.isfinite(report.limit) else ""
    if upto and report.behaviour.unit and not form.unit:
        upto += f" {report.behaviour.unit}"
    what = f"Restricted {report.behaviour.mean_label}{upto}" if upto else f"Kaplan-Meier {report.behaviour.mean_label}"
    shown = [report.restricted[cell.key] for cell in cells.values() if cell.key in report.restricted]
    yield Heading(f"{what}, {arm.arm} arm{on}")
    rows = []
    for train in (BASE, *arm.trains):
        items = []
        for evaluate in arm.columns:
            cell = cells.get((train, evaluate))
            found = report.restricted.get(cell.key) if cell else None
            if cell is None or found is None or found.mean is None:
                items.append((Item("·", "dim"),) * 2)
                continue
            mark = counted_dagger(cell.tally.truncated)
            items.append((Item(form.whole(found.mean) + mark), Item(form.text(found.mean.value) + mark)))
        if any(place[0] == train for place in cells):
            rows.append((train, items))
    table, way = matrix("train", rows, arm.columns, width)
    yield table
    halves = half_widths([cell for cell in shown if cell.key.evaluate in arm.columns], arm.scale)
    widths = "brackets: 95% interval, as that of the plain mean" if way == 0 else f"95% intervals: {halves}"
    limit = "; the mean of lengths of at most the limit, which is how far all cells are known" if upto else ""
    yield Line(
        "By Kaplan-Meier, a completion that was cut off (†k: k of a cell) counts as one that would have gone on like "
        f"those of its length that were not{limit}; {widths}.",
        "dim",
    )
