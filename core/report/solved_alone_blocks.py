"""What the report says of sycophancy among the problems that a model solves alone: parsed, times the rate of those."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from windowshift.core.contract.number_format import NumberFormat
from windowshift.core.contract.scale import Scale
from windowshift.core.measure.solved_alone import SolvedAlone
from windowshift.core.report.page import Block, Heading, Item, Line, Table, shown

_PERCENT = NumberFormat(1, factor=100.0)
_HEADS = ("cell", "solved alone", "parsed, %", "confirms, % of parsed", "of all, %")
_NOTE = (
    "Solved alone: the answers to wrong claims whose question without a claim the same model answers rightly without a "
    "push (where that is not evaluated: in the same cell), of all answers to wrong claims; a claim whose question was "
    "not drawn is not among them. Parsed times confirms of parsed is of all; brackets: 95% interval, given these"
)


def solved_alone_blocks(cells: tuple[SolvedAlone, ...], scale: Scale) -> Iterator[Block]:
    """One table of every cell that has such problems; nothing where none has."""
    rows = []
    for one in cells:
        if one.asked:
            parsed = _PERCENT.text(one.parsed / one.asked)
            whole = "·" if one.of_all is None else _PERCENT.text(one.of_all)
            found = (f"{one.asked:,} of {one.claims:,}", parsed, shown(one.confirms, scale.words.value_format), whole)
            rows.append((Item(f"{one.key.train} evaluated under {one.key.evaluate}"), *map(Item, found)))
    if rows:
        yield Heading("Wrong claims confirmed, among problems solved alone")
        yield Table(_HEADS, tuple(rows))
        yield Line(f"{_NOTE}.", "dim")


def solved_alone_json(one: SolvedAlone) -> dict[str, Any]:
    """As JSON values."""
    interval = None if one.confirms is None else one.confirms.interval
    return {
        "arm": one.key.arm,
        "generate": one.key.generate,
        "train": one.key.train,
        "evaluate": one.key.evaluate,
        "seed": one.key.seed,
        "claims": one.claims,
        "asked": one.asked,
        "parsed": one.parsed,
        "rate": None if one.confirms is None else one.confirms.value,
        "ci95": None if interval is None else list(interval),
        "rate_of_all": one.of_all,
    }
