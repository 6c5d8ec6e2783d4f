"""What the report says of the contrasts that the spec named, before anything else."""

from __future__ import annotations

import time
from collections.abc import Iterator

from windowshift.core.contract.estimate import counts_text
from windowshift.core.contract.number_format import NumberFormat
from windowshift.core.measure.contrasts import ContrastMeasure
from windowshift.core.report.page import Block, Heading, Item, Line, Table, shown
from windowshift.core.report.report import Report


def contrast_blocks(report: Report) -> Iterator[Block]:
    """The contrasts, each with when it was registered; nothing where the spec names none."""
    if not report.contrasts:
        return
    words = report.behaviour.scale.words
    yield Heading(f"Contrasts that the spec names ({words.effect})")
    rows = []
    margins = any(one.margin is not None for one in report.contrasts)
    for one in report.contrasts:
        number = shown(one.effect, words.effect_format, missing=f"— ({one.reason})")
        n = counts_text(one.effect.prompts, one.effect.n, one.effect.seeds) if one.effect else ""
        same = [Item(_same(one, words.effect_format))] if margins else []
        rows.append((Item(one.name), Item(number), Item(_p(one.p)), *same, Item(_p(one.holm)), Item(n)))
    heads = ("contrast", "effect [95%]", "p", *(("p, as good as none",) if margins else ()), "p, Holm", "n")
    yield Table(heads, tuple(rows))
    if margins:
        yield Line(
            "p, as good as none: two one-sided tests that the difference lies within the margin of the spec; p, Holm "
            "is of the smaller of both.",
            "dim",
        )
    for one in report.contrasts:
        yield Line(_registered(one), "dim" if not one.cells_done and one.withdrawn is None else "yellow")
    yield from _look_blocks(report)


def _look_blocks(report: Report) -> Iterator[Block]:
    """That the run looked at the contrasts while it went on, how often, and whether it stopped by that."""
    if not report.looks:
        return
    last = report.looks[-1]
    count = len({one.number for one in report.looks})
    looks = f"{count} look{'' if count == 1 else 's'} of at most {last.of}"
    rule = (
        f"a contrast is decided where its p, adjusted by Holm, is at most {last.level:.3g}, which is 0.05 over "
        f"{last.of} (Bonferroni over looks); p and intervals above are not adjusted for looks"
    )
    stop = next((one for one in reversed(report.looks) if one.stopped), None)
    if stop is None:
        undecided = f"not decided at the last: {', '.join(last.undecided)}" if last.undecided else "all are decided"
        yield Line(f"The contrasts were looked at during the run, {looks}; {undecided}; {rule}.")
        return
    gone_on = report.experiment.cells_total - report.experiment.cells_done < stop.cells_left
    later = "; MORE WAS TRAINED AFTERWARDS" if gone_on else ""
    yield Line(
        f"STOPPED BY RULE {_day(stop.at)}, once the contrasts were decided, after {looks}, with {stop.cells_left} "
        f"cells left out{later}; {rule}.",
        "bold yellow",
    )


def _same(one: ContrastMeasure, form: NumberFormat) -> str:
    return "" if one.margin is None else f"{_p(one.same) or '—'} (±{one.margin * form.factor:g}{form.unit})"


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "<0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.1 else f"{value:.2f}"


def _registered(one: ContrastMeasure) -> str:
    done = "before any cell was done" if not one.cells_done else f"WHEN {one.cells_done} CELLS WERE DONE ALREADY"
    said = f"{one.hash} ({one.name}): registered {_day(one.registered)}, {done}"
    return f"{said}; WITHDRAWN from the spec {_day(one.withdrawn)}" if one.withdrawn is not None else said


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
