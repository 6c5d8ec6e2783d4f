"""What the report says, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mode

from windowshift.core.contract.records import BASE
from windowshift.core.contract.stats import Estimate
from windowshift.core.measure.measures import ArmMeasures, CellMeasure, Extreme, GroupMeasures, Spread
from windowshift.core.report.fit_blocks import SCALES, fit_blocks, row_label
from windowshift.core.report.page import (
    Block,
    Heading,
    Item,
    Line,
    Table,
    matrix,
    number,
    signed,
    with_interval,
)
from windowshift.core.report.report import REHEARSAL, Report
from windowshift.core.report.steering_blocks import steering_blocks


def report_blocks(report: Report, width: int | None) -> list[Block]:
    """Everything the report says, for a terminal of `width` columns (None: as wide as need be)."""
    blocks = list(_head(report))
    for arm in report.measures.arms.values():
        for generate in arm.generates or ("",):
            blocks += _means(report, arm, generate, width)
        for generate in arm.generates:
            blocks += _uplifts(arm, generate, width)
            blocks += _spreads(report, arm, generate)
            blocks += _extremes(arm.by_generate[generate], generate)
        if arm.generates:
            blocks += fit_blocks(report, arm)
        blocks += _course(arm)
    scale = SCALES[next(iter(report.measures.arms.values())).scale] if report.measures.arms else ""
    blocks += steering_blocks(report.steering, report.behaviour.unit, scale)
    blocks += _gaps(report)
    return blocks


def _head(report: Report) -> Iterator[Block]:
    experiment, behaviour = report.experiment, report.behaviour
    yield Heading(f"{experiment.name}: {behaviour.name} ({behaviour.unit}) on {experiment.model}", 1)
    if experiment.rehearsal:
        yield Line(f"REHEARSAL MODEL: {REHEARSAL}.", "bold yellow")
    jobs = ", ".join(f"{count} {state}" for state, count in sorted(experiment.jobs.items())) or "none"
    cost = "" if experiment.usd is None else f" · {experiment.usd:.2f} USD"
    yield Line(
        f"{experiment.state} · {experiment.cells_done} of {experiment.cells_total} cells done · jobs: {jobs}{cost} · "
        f"setting {experiment.setting}, backend {experiment.backend}, {experiment.data_size} examples in D"
    )
    if experiment.error:
        yield Line(f"error: {experiment.error}", "bold red")
    for note in report.notes:
        if note != REHEARSAL:
            yield Line(f"Note: {note}.")


def _cells(arm: ArmMeasures, generate: str) -> dict[tuple[str, str], CellMeasure]:
    return {
        (cell.key.train, cell.key.evaluate): cell
        for cell in arm.cells
        if cell.key.final and (cell.key.train == BASE or cell.key.generate == generate)
    }


def _trains(arm: ArmMeasures, cells: dict[tuple[str, str], CellMeasure]) -> list[str]:
    there = {train for train, _ in cells}
    return [train for train in (BASE, *arm.trains) if train in there]


def _means(report: Report, arm: ArmMeasures, generate: str, width: int | None) -> Iterator[Block]:
    cells = _cells(arm, generate)
    usual = mode([cell.tally.n for cell in cells.values() if cell.tally.n] or [0])
    on = f", trained on {generate} data" if generate else ""
    yield Heading(f"Mean {report.behaviour.unit}, {arm.arm} arm{on} (rows: train condition, columns: eval condition)")
    rows = []
    for train in _trains(arm, cells):
        items = [_mean(cells.get((train, evaluate)), usual) for evaluate in arm.columns]
        rows.append((train, items))
    table, full = matrix("train", rows, arm.columns, width)
    yield table
    shown = [cell for cell in cells.values() if cell.key.evaluate in arm.columns]
    legend = [f"n = {usual} completions a cell" + (f", {len(arm.seeds)} seeds pooled" if len(arm.seeds) > 1 else "")]
    if full:
        legend.append("brackets: 95% interval, bootstrap clustered by prompt")
    elif halves := [_half(cell) for cell in shown if _half(cell)]:
        ends = sorted({f"±{round(100 * min(halves))}%", f"±{round(100 * max(halves))}%"}, key=len)
        legend.append(f"95% intervals: {' to '.join(ends)} of the mean")
    if any(cell.tally.truncated for cell in shown):
        legend.append("†k: k truncated at the token limit, their lengths are lower bounds")
    if any(cell.tally.n not in (0, usual) for cell in shown):
        legend.append("(k): k completions only")
    if any(not cell.tally.n for cell in shown):
        legend.append("· not there yet")
    yield Line("; ".join(legend) + ".", "dim")


def _half(cell: CellMeasure) -> float:
    mean = cell.mean
    if mean is None or mean.low is None or mean.high is None or not mean.value:
        return 0.0
    return (mean.high - mean.low) / 2 / abs(mean.value)


def _mean(cell: CellMeasure | None, usual: int) -> tuple[Item, Item]:
    if cell is None or cell.mean is None:
        item = Item("failed", "bold red") if cell is not None and cell.status == "failed" else Item("·", "dim")
        return item, item
    mark = f"†{cell.tally.truncated}" if cell.tally.truncated else ""
    mark += f" ({cell.tally.n})" if cell.tally.n != usual else ""
    return Item(with_interval(cell.mean) + mark), Item(number(cell.mean.value) + mark)


def _uplifts(arm: ArmMeasures, generate: str, width: int | None) -> Iterator[Block]:
    cells = _cells(arm, generate)
    averages = {point.train: point.y for point in arm.by_generate[generate].points}
    yield Heading(f"Uplift over the base model ({SCALES[arm.scale]}), {arm.arm} arm, trained on {generate} data")
    rows = []
    for train in _trains(arm, cells)[1:]:
        items = []
        for evaluate in arm.columns:
            cell = cells.get((train, evaluate))
            items.append(_uplift(cell.uplift if cell else None))
        rows.append((train, [*items, _uplift(averages.get(train))]))
    table, full = matrix("train", rows, [*arm.columns, "average"], width)
    yield table
    if full:
        yield Line("± half the width of the 95% interval, paired by prompt.", "dim")
    else:
        yield Line("* the 95% interval, paired by prompt, leaves out 0.", "dim")


def _uplift(one: Estimate | None) -> tuple[Item, Item]:
    if one is None:
        return Item("·", "dim"), Item("·", "dim")
    text = number(one.value, 2)
    if one.low is None or one.high is None:
        return Item(text), Item(text)
    sure = one.low > 0 or one.high < 0
    style = ("red" if one.value > 0 else "blue") if sure else ""
    half = (one.high - one.low) / 2
    return Item(f"{text} ±{half:.2f}", style), Item(f"{text}{'*' if sure else ' '}", style)


def _spreads(report: Report, arm: ArmMeasures, generate: str) -> Iterator[Block]:
    group = arm.by_generate[generate]
    yield from _spread_table(report, arm, generate, group.spreads, "")
    yield from _spread_table(report, arm, generate, group.cross_spreads, ", the other arm's")


def _spread_table(
    report: Report, arm: ArmMeasures, generate: str, spreads: tuple[Spread, ...], which: str
) -> Iterator[Block]:
    if not spreads:
        return
    if arm.scale == "log2":
        yield Heading(
            f"Instruction following left, {arm.arm} arm, {generate} data: CV of the mean lengths across eval "
            f"conditions{which}"
        )
        yield Line("CV = standard deviation (of the population, ddof 0) / mean of the row's cell means.", "dim")
    else:
        yield Heading(
            f"Instruction following left, {arm.arm} arm, {generate} data: standard deviation across eval "
            f"conditions{which}"
        )
    own = arm.arm == "prefix" and not which
    reference = report.published.spread(generate) if report.published and own else None
    heads = ["train", f"{report.experiment.model} (this run)", "kept, of base"]
    if reference:
        heads.append(f"{reference.model} (published)")
    rows = []
    for spread in spreads:
        kept = spread.kept if spread.train != BASE else None
        if spread.value is None:
            row = [Item(spread.train), Item(spread.reason or "·", "dim"), Item("·", "dim")]
        else:
            left = with_interval(kept, 2) if kept else ""
            row = [Item(spread.train), Item(with_interval(spread.value, 2)), Item(left)]
        if reference:
            value = reference.values.get(spread.train)
            row.append(Item("" if value is None else number(value, 2), "dim"))
        rows.append(tuple(row))
    yield Table(tuple(heads), tuple(rows))


def _extremes(group: GroupMeasures, generate: str) -> Iterator[Block]:
    if not group.extremes:
        return
    yield Heading(f"Extreme elicitation, {generate} data")
    for one in group.extremes:
        yield Line(_extreme(one))
    yield Line("The intervals are the named cell's; they do not allow for its being picked as the extreme.", "dim")


def _extreme(one: Extreme) -> str:
    unit, decimals = ("%", 1) if one.relative else ("", 3)
    word = "lowest" if one.direction == "low" else "highest"
    seen = "" if one.cells == one.planned else f" (of {one.cells} cells so far, {one.planned} planned)"
    return (
        f"{word} mean: trained under {one.train}, evaluated under {one.evaluate}: {number(one.mean)}{seen}; "
        f"against the base model {signed(one.vs_base, decimals, unit)}, "
        f"against the no_prefix fine-tune {signed(one.vs_no_prefix, decimals, unit)}"
    )


def _course(arm: ArmMeasures) -> Iterator[Block]:
    if not arm.course:
        return
    yield Heading(f"Course of training, {arm.arm} arm: averages over the checkpoints' eval conditions")
    rows = []
    for point in arm.course:
        label = row_label(arm, point.generate, point.train)
        items = (Item(str(point.step)), Item(with_interval(point.mean)), Item(with_interval(point.cv, 2)))
        rows.append((Item(label), *items))
    spread = "CV" if arm.scale == "log2" else "sd"
    yield Table((row_label(arm, "data", "train"), "examples", "mean", spread), tuple(rows))


def _gaps(report: Report) -> Iterator[Block]:
    yield Heading("Truncated, missing and failed")
    tally = report.tally
    total = tally.n + tally.missing
    share = f" ({100 * tally.truncated / tally.n:.1f}%)" if tally.n else ""
    yield Line(
        f"{total:,} completions in all cells: {tally.truncated:,} truncated{share}, which count with the length they "
        f"were cut off at; {tally.missing:,} without a score ({tally.failed:,} failed completions, "
        f"{tally.missing - tally.failed:,} missing scores), which are in no mean."
    )
    cells = [cell for arm in report.measures.arms.values() for cell in arm.seed_cells if cell.tally.truncated]
    if cells:
        worst = max(cells, key=lambda cell: cell.tally.truncated / cell.tally.n)
        key, n = worst.key, worst.tally
        yield Line(f"Most truncated: {key.train} evaluated under {key.evaluate}: {n.truncated} of {n.n}.")
    for label, error in report.failed_jobs:
        yield Line(f"Failed job '{label}': {error}", "red")
