"""A report in a notebook: its cells as a table, with n and intervals, under what has to be known to read them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from windowshift.core.contract.html_table import html_page
from windowshift.core.contract.records import BASE
from windowshift.core.measure.measures import ArmMeasures, CellMeasure
from windowshift.core.report.inside_blocks import inside_lines

if TYPE_CHECKING:
    from windowshift.core.report.report import Report

HEADS = ("arm", "D", "trained under", "asked under", "n", "mean [95 % interval]", "against base [95 % interval]")


def report_html(report: Report) -> str:
    """The final cells of all arms, seeds pooled; one that is not done says how far it is."""
    experiment, behaviour = report.experiment, report.behaviour
    unit = f" ({behaviour.unit})" if behaviour.unit else ""
    lines = [f"{experiment.state}, {experiment.cells_done} of {experiment.cells_total} cells done"]
    lines += [f"Note: {note}." for note in report.notes]
    lines += [f"failed: {label}: {error}" for label, error in report.failed_jobs]
    lines += inside_lines(report.inside)
    rows = [row for arm in report.measures.arms.values() for row in _rows(arm)]
    return html_page(f"{experiment.name}: {behaviour.name}{unit} on {experiment.model}", lines, HEADS, rows)


def _rows(arm: ArmMeasures) -> Iterator[tuple[str, ...]]:
    for cell in arm.cells:
        if cell.key.final:
            made = "" if cell.key.train == BASE else cell.key.generate
            yield (arm.arm, made, cell.key.train, cell.key.evaluate, str(cell.tally.n), *_numbers(cell, arm))


def _numbers(cell: CellMeasure, arm: ArmMeasures) -> tuple[str, str]:
    words = arm.scale.words
    if cell.mean is None:
        done, total = cell.progress
        return ("no completion has a score" if cell.status == "done" else f"{cell.status}, {done} of {total}", "")
    against = "" if cell.effect is None else words.effect_format.whole(cell.effect)
    return words.value_format.whole(cell.mean), against
