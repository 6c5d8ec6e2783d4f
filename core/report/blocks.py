"""What the report says, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mode

from windowshift.core.contract.estimate import Estimate, counts_text
from windowshift.core.contract.number_format import number
from windowshift.core.contract.records import BASE
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.truncation import DAGGER, counted_dagger, dagger_note
from windowshift.core.measure.family import ALPHA, MARKS, Claim
from windowshift.core.measure.kept_data import KeptCount
from windowshift.core.measure.measures import ArmMeasures, CellMeasure, Extreme, GroupMeasures, Spread
from windowshift.core.report.contrast_blocks import contrast_blocks
from windowshift.core.report.fit_blocks import fit_blocks, row_label
from windowshift.core.report.guard_blocks import guard_blocks
from windowshift.core.report.half_widths import half_widths
from windowshift.core.report.inside_blocks import inside_blocks
from windowshift.core.report.missing_blocks import missing_blocks
from windowshift.core.report.page import (
    Block,
    Heading,
    Item,
    Line,
    Table,
    compared,
    matrix,
    shown,
)
from windowshift.core.report.preflight_blocks import preflight_blocks
from windowshift.core.report.report import REHEARSAL, Report
from windowshift.core.report.restricted_blocks import restricted_blocks
from windowshift.core.report.selection_page import selected_blocks
from windowshift.core.report.solved_alone_blocks import solved_alone_blocks
from windowshift.core.report.steering_blocks import steering_blocks
from windowshift.core.report.truncated_rows import cut_cells, row_dagger
from windowshift.core.spec.given import said_range


def report_blocks(report: Report, width: int | None) -> list[Block]:
    """Everything the report says, for a terminal of `width` columns (None: as wide as need be)."""
    blocks = [*_head(report), *preflight_blocks(report.preflights)]
    blocks += [*selected_blocks(report.selected), *contrast_blocks(report)]
    for arm in report.measures.arms.values():
        for generate in arm.generates or ("",):
            blocks += _means(report, arm, generate, width)
            blocks += restricted_blocks(report, arm, generate, width)
        for generate in arm.generates:
            blocks += _uplifts(arm, generate, width)
            if arm.scale.words.two:
                blocks += _uplifts(arm, generate, width, link=True)
            blocks += missing_blocks(arm, generate)
            blocks += _spreads(report, arm, generate)
            blocks += _extremes(arm.by_generate[generate], generate, arm.scale)
        if arm.generates:
            blocks += fit_blocks(report, arm)
        blocks += _course(arm)
    blocks += solved_alone_blocks(report.alone, report.behaviour.scale)
    blocks += steering_blocks(report.steering, report.behaviour)
    blocks += inside_blocks(report.inside, width)
    blocks += guard_blocks(report.guards, width)
    blocks += _gaps(report)
    return blocks


def _head(report: Report) -> Iterator[Block]:
    experiment, behaviour = report.experiment, report.behaviour
    unit = f" ({behaviour.unit})" if behaviour.unit else ""
    yield Heading(f"{experiment.name}: {behaviour.name}{unit} on {experiment.model}", 1)
    if experiment.rehearsal:
        yield Line(f"REHEARSAL MODEL: {REHEARSAL}.", "bold yellow")
    jobs = ", ".join(f"{count} {state}" for state, count in sorted(experiment.jobs.items())) or "none"
    cost = "" if experiment.usd is None else f" · {experiment.usd:.2f} USD"
    asked = " asked for" if report.kept else " in D"
    yield Line(
        f"{experiment.state} · {experiment.cells_done} of {experiment.cells_total} cells done · jobs: {jobs}{cost} · "
        f"setting {experiment.setting}, backend {experiment.backend}, {experiment.data_size} examples{asked}"
    )
    for generate in dict.fromkeys(one.generate for one in report.kept):
        yield Line(_kept([one for one in report.kept if one.generate == generate]))
    if experiment.error:
        yield Line(f"error: {experiment.error}", "bold red")
    for note in report.notes:
        if note != REHEARSAL:
            yield Line(f"Note: {note}.")


def _kept(counts: Sequence[KeptCount]) -> str:
    """What is kept of one D, seed by seed, and by which scores."""
    each = [f"{one.kept:,} of {one.asked:,}" + (f" (seed {one.seed})" if len(counts) > 1 else "") for one in counts]
    by = " and ".join(said_range(name, *ends) for name, ends in counts[0].ranges.items())
    unscored = sum(one.unscored for one in counts)
    lacking = f"; {unscored:,} without a score are not" if unscored else ""
    return f"D {counts[0].generate}, what is kept of it: {', '.join(each)}, by {by}{lacking}"


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
    label = report.behaviour.mean_label
    label = label[0].upper() + label[1:]
    yield Heading(f"{label}, {arm.arm} arm{on} (rows: train condition, columns: eval condition)")
    rows = []
    for train in _trains(arm, cells):
        items = [_mean(cells.get((train, evaluate)), usual, arm.scale) for evaluate in arm.columns]
        rows.append((train, items))
    table, way = matrix("train", rows, arm.columns, width)
    yield table
    there = [cell for cell in cells.values() if cell.key.evaluate in arm.columns]
    legend = [f"n = {_counts(cells, usual)} a cell"]
    if way == 0:
        legend.append(f"brackets: 95% interval over prompts, {_kind(arm.scale)}")
    elif halves := half_widths(there, arm.scale):
        legend.append(f"95% intervals: {halves}")
    if any(cell.tally.truncated for cell in there):
        legend.append(f"†k: k truncated at the token limit; {arm.scale.words.truncated}")
    if arm.scale.kind != "rate" and any(cell.mean and (cell.mean.prompts or 0) < FEW_PROMPTS for cell in there):
        legend.append(f"below {FEW_PROMPTS} prompts the interval of a skewed mean covers less than 95%")
    if any(cell.mean and cell.tally.n != usual for cell in there):
        legend.append("(k): k completions only")
    if any(_at_work(cell) for cell in there):
        legend.append("k/m: at work, k of m completions there")
    blank = [cell for cell in there if cell.mean is None and not _at_work(cell)]
    if any(cell.status != "done" for cell in blank):
        legend.append("· not there yet")
    if any(cell.status == "done" for cell in blank):
        legend.append("· of a cell that is done: none of its completions has a score")
    yield Line("; ".join(legend) + ".", "dim")


FEW_PROMPTS = 50
"""Below so many prompts the tail of skewed scores is hardly seen."""


def _counts(cells: dict[tuple[str, str], CellMeasure], usual: int) -> str:
    """Prompts, completions and seeds of a usual cell."""
    own = [cell for cell in cells.values() if cell.mean and cell.tally.n == usual]
    trained = next((cell for cell in own if cell.key.train != BASE), own[0] if own else None)
    if trained is None or trained.mean is None:
        return counts_text(None, usual, 0)
    return counts_text(trained.mean.prompts, usual, trained.mean.seeds)


def _kind(scale: Scale) -> str:
    return "Wilson" if scale.kind == "rate" else "bootstrap-t clustered by prompt"


def _at_work(cell: CellMeasure) -> bool:
    return cell.status != "done" and cell.progress[0] > 0


def _mean(cell: CellMeasure | None, usual: int, scale: Scale) -> tuple[Item, Item]:
    if cell is None or cell.mean is None:
        if cell is not None and cell.status == "failed":
            item = Item("failed", "bold red")
        elif cell is not None and _at_work(cell):
            item = Item("{}/{}".format(*cell.progress), "dim")
        else:
            item = Item("·", "dim")
        return item, item
    mark = counted_dagger(cell.tally.truncated)
    mark += f" ({cell.tally.n})" if cell.tally.n != usual else ""
    form = scale.words.value_format
    return Item(form.whole(cell.mean) + mark), Item(form.text(cell.mean.value) + mark)


def _uplifts(arm: ArmMeasures, generate: str, width: int | None, *, link: bool = False) -> Iterator[Block]:
    cells, words = _cells(arm, generate), arm.scale.words
    family = arm.families.get(generate, ())
    marks = {(one.key.train, one.key.evaluate): one.mark for one in family}
    cut = cut_cells(arm, generate)
    averages = {point.train: point.y if link else point.effect for point in arm.by_generate[generate].points}
    what, form = (words.link, words.link_format) if link else (words.effect, words.effect_format)
    yield Heading(f"Uplift over the base model ({what}), {arm.arm} arm, trained on {generate} data")
    rows = []
    for train in _trains(arm, cells)[1:]:
        items = []
        for evaluate in arm.columns:
            cell, place = cells.get((train, evaluate)), (train, evaluate)
            mark = (DAGGER if place in cut else "") + marks.get(place, "")
            items.append(compared((cell.uplift if link else cell.effect) if cell else None, form, mark))
        rows.append((train, [*items, compared(averages.get(train), form, dagger=row_dagger(arm, generate, train))]))
    table, way = matrix("train", rows, [*arm.columns, "average"], width)
    yield table
    ways = (
        "Brackets: 95% interval, paired by prompt. ",
        "± half the width of the 95% interval, paired by prompt. ",
        "",
    )
    note = f"; {dagger_note(arm.scale)}" if cut else ""
    yield Line(f"{ways[way]}{MARKS}{note}.", "dim")
    if family and not link:
        yield Line(_all_at_once(family, arm.scale), "dim")


def _all_at_once(family: tuple[Claim, ...], scale: Scale) -> str:
    """What of a table holds when all of it is read."""
    own, lenient, strict = (sum(getattr(one, p) <= ALPHA for one in family) for p in ("p", "bh", "holm"))
    together = [one.uplift for one in family if one.uplift.decided]
    band = ""
    if together:
        nearest = min(together, key=lambda one: min(abs(one.low or 0.0), abs(one.high or 0.0)))
        band = f", the nearest of which is {scale.words.link_format.whole(nearest)} there"
    return (
        f"All {len(family)} cells at once: {own} leave out 0 by their own intervals, {lenient} after "
        f"Benjamini-Hochberg, {strict} after Holm, {len(together)} in simultaneous 95% bands (max-T over the joint "
        f"resamples, {scale.words.link}){band}."
    )


def _spreads(report: Report, arm: ArmMeasures, generate: str) -> Iterator[Block]:
    group = arm.by_generate[generate]
    yield from _spread_table(report, arm, generate, group.spreads, "")
    yield from _spread_table(report, arm, generate, group.cross_spreads, ", the other arm's")


def _spread_table(
    report: Report, arm: ArmMeasures, generate: str, spreads: tuple[Spread, ...], which: str
) -> Iterator[Block]:
    if not spreads:
        return
    words = arm.scale.words
    yield Heading(
        f"Instruction following left, {arm.arm} arm, {generate} data: {words.spread_long} across eval conditions{which}"
    )
    if words.spread == "CV":
        yield Line("CV = standard deviation (of the population, ddof 0) / mean of the row's cell means.", "dim")
    elif unit := words.spread_format.unit:
        yield Line(f"Standard deviation of the population (ddof 0), in{unit}.", "dim")
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
            left = words.kept_format.whole(kept) if kept else ""
            dagger = row_dagger(arm, generate, spread.train) if not which else ""
            row = [Item(spread.train + dagger), Item(words.spread_format.whole(spread.value)), Item(left)]
        if reference:
            value = reference.values.get(spread.train)
            row.append(Item("" if value is None else number(value, 2), "dim"))
        rows.append(tuple(row))
    yield Table(tuple(heads), tuple(rows))
    if any(DAGGER in row[0].text for row in rows):
        yield Line(f"{dagger_note(arm.scale)}.", "dim")


def _extremes(group: GroupMeasures, generate: str, scale: Scale) -> Iterator[Block]:
    if not group.extremes:
        return
    yield Heading(f"Extreme elicitation, {generate} data")
    for one in group.extremes:
        yield Line(_extreme(one, scale))
        yield Line(_held_out(one, scale))
    note = "Over all prompts the intervals are the named cell's and do not allow for its being picked as the extreme"
    if any(one.held_out for one in group.extremes):
        note += "; those of the held-out half do (of the noise between training runs, both halves have the same)"
    if any(one.tally.truncated for one in group.extremes):
        note += f"; †k: k of its completions are truncated; {scale.words.truncated}"
    yield Line(f"{note}.", "dim")


def _extreme(one: Extreme, scale: Scale) -> str:
    words = scale.words

    def against(found: Estimate | None) -> str:
        return shown(found, words.change_format, unit=True, missing="— (not there yet)")

    mean = words.value_format.with_unit(one.mean) + counted_dagger(one.tally.truncated)
    word = "lowest" if one.direction == "low" else "highest"
    seen = "" if one.cells == one.planned else f" (of {one.cells} cells so far, {one.planned} planned)"
    said = (
        f"{word} mean: trained under {one.train}, evaluated under {one.evaluate}: {mean}{seen}; "
        f"against the base model {against(one.vs_base)}"
    )
    return f"{said}, against the no_prefix fine-tune {against(one.vs_no_prefix)}" if one.unpushed else said


def _held_out(one: Extreme, scale: Scale) -> str:
    """The same, of a cell that was chosen on other prompts than it is measured on."""
    held = one.held_out
    if held is None:
        return "no held-out measure: a half of the prompts has fewer than 10"
    form = scale.words.change_format
    same = (held.train, held.evaluate) == (one.train, one.evaluate)
    which = "the same cell" if same else f"trained under {held.train}, evaluated under {held.evaluate}"
    left = held.vs_base.prompts if held.vs_base else None
    said = (
        f"chosen on one half of the prompts (n = {held.chosen_on}): {which}; measured on the other "
        f"({counts_text(left, held.vs_base.n, held.vs_base.seeds) if held.vs_base else 'nothing there'}): against the "
        f"base model {shown(held.vs_base, form, unit=True)}"
    )
    return (
        f"{said}, against the no_prefix fine-tune {shown(held.vs_no_prefix, form, unit=True)}" if one.unpushed else said
    )


def _course(arm: ArmMeasures) -> Iterator[Block]:
    if not arm.course:
        return
    yield Heading(f"Course of training, {arm.arm} arm: averages over the checkpoints' eval conditions")
    rows, words = [], arm.scale.words
    for point in arm.course:
        label = row_label(arm, point.generate, point.train)
        mean, spread = shown(point.mean, words.value_format), shown(point.cv, words.spread_format)
        rows.append((Item(label), Item(str(point.step)), Item(mean), Item(spread)))
    head = "mean" + (f", {unit}" if (unit := words.value_format.unit) else "")
    yield Table((row_label(arm, "data", "train"), "examples", head, words.spread), tuple(rows))


def _gaps(report: Report) -> Iterator[Block]:
    yield Heading("Truncated, missing and failed")
    tally = report.tally
    total = tally.n + tally.missing
    share = f" ({100 * tally.truncated / tally.n:.1f}%)" if tally.n else ""
    yield Line(
        f"{total:,} completions in all cells: {tally.truncated:,} truncated{share}: "
        f"{report.behaviour.scale.words.truncated}; "
        f"{tally.missing:,} without a score ({tally.failed:,} failed completions, "
        f"{tally.missing - tally.failed:,} missing scores), which are in no mean."
    )
    cells = [cell for arm in report.measures.arms.values() for cell in arm.seed_cells if cell.tally.truncated]
    if cells:
        worst = max(cells, key=lambda cell: cell.tally.truncated / cell.tally.n)
        key, n = worst.key, worst.tally
        yield Line(f"Most truncated: {key.train} evaluated under {key.evaluate}: {n.truncated} of {n.n}.")
    for label, error in report.failed_jobs:
        yield Line(f"Failed job '{label}': {error}", "red")
