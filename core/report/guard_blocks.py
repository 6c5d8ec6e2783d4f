"""The guards in the report: what each fine-tune lost or gained against the base model, behaviour by behaviour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from windowshift.core.measure.comparison import RowKey
from windowshift.core.measure.grid import Tally
from windowshift.core.measure.guard_results import GuardResult
from windowshift.core.measure.measures import CellMeasure
from windowshift.core.report.page import Block, Heading, Item, Line, compared, matrix


def guard_blocks(results: Sequence[GuardResult], width: int | None) -> Iterator[Block]:
    """The tables of all guards, one for each eval condition; nothing where there are none."""
    for guard in dict.fromkeys(one.guard for one in results):
        own = [one for one in results if one.guard == guard]
        for evaluate in dict.fromkeys(cell.key.evaluate for one in own for cell in one.base):
            yield Heading(f"Guard {guard}, evaluated under {evaluate}: the base model, and fine-tunes minus it")
            yield from _table(own, evaluate, width)


def _table(results: Sequence[GuardResult], evaluate: str, width: int | None) -> Iterator[Block]:
    found = {one.behaviour.name: _cells(one, evaluate) for one in results}
    names = list(dict.fromkeys(name for cells in found.values() for name in cells if name[2]))
    rows = []
    for one in results:
        cells, words = found[one.behaviour.name], one.behaviour.scale.words
        items = [_base(cells.get(("", "", "")), one)]
        for name in names:
            cell = cells.get(name)
            items.append(compared(cell.effect if cell else None, words.effect_format))
        rows.append((f"{one.behaviour.name}{_n(cells)}", items))
    several = [len(set(part)) > 1 for part in zip(*names, strict=True)] or [False] * 3
    heads = [": ".join(part for part, told in zip(name, (*several[:2], True), strict=True) if told) for name in names]
    table, way = matrix("behaviour (n)", rows, ["base", *heads], width)
    yield table
    yield Line(
        ". ".join([*_legend(results, way), _gaps(found[results[0].behaviour.name]), "· no score, or not there yet."]),
        "dim",
    )


def _legend(results: Sequence[GuardResult], way: int) -> Iterator[str]:
    yield f"Differences: {', '.join(dict.fromkeys(one.behaviour.scale.words.effect for one in results))}"
    yield (
        "Brackets: 95% interval, clustered and paired by prompt",
        "± half the width of the 95% interval, clustered and paired by prompt",
        "* the 95% interval, clustered and paired by prompt, leaves out 0",
    )[way]
    counted = dict.fromkeys(one.behaviour.counts or "completions" for one in results)
    yield f"n counts {' or '.join(counted)} that both have a score for"


def _gaps(cells: dict[RowKey, CellMeasure]) -> str:
    tally = sum((cell.tally for cell in cells.values()), Tally(0, 0, 0, 0))
    cut = f"{tally.truncated:,} of {tally.n:,} scored answers were cut off at the token limit"
    return f"{cut}; {tally.missing:,} have no score, {tally.failed:,} of them failed"


def _cells(result: GuardResult, evaluate: str) -> dict[RowKey, CellMeasure]:
    """The cells under an eval condition, the base model's without a name."""
    found: dict[RowKey, CellMeasure] = {}
    for cell in result.base:
        if cell.key.evaluate == evaluate:
            found.setdefault(("", "", ""), cell)
    for cell in result.tuned:
        if cell.key.evaluate == evaluate:
            found[cell.key.arm, cell.key.generate, cell.key.train] = cell
    return found


def _n(cells: dict[RowKey, CellMeasure]) -> str:
    """The numbers behind a row: from the least to the most of what base and fine-tunes share."""
    counts = sorted({cell.effect.n for cell in cells.values() if cell.effect is not None})
    return f" ({'–'.join(str(one) for one in dict.fromkeys((counts[0], counts[-1])))})" if counts else ""


def _base(cell: CellMeasure | None, result: GuardResult) -> tuple[Item, Item, Item]:
    form = result.behaviour.scale.words.value_format
    if cell is None or cell.mean is None:
        return (Item("·", "dim"),) * 3
    return Item(form.whole(cell.mean)), Item(form.text(cell.mean.value)), Item(form.text(cell.mean.value))
