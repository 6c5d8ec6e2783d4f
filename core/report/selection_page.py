"""A selection as a page and as JSON, and what the report says of one that was frozen before the run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from windowshift.core.contract.number_format import NumberFormat, number
from windowshift.core.measure.microscope import LITTLE
from windowshift.core.measure.selected import Selected
from windowshift.core.measure.selection import ranked
from windowshift.core.report.page import Block, Heading, Item, Line, Table, shown
from windowshift.core.report.report import REHEARSAL

if TYPE_CHECKING:
    from windowshift.core.run.select import Selection

MARK = "‡"


def selection_blocks(found: Selection, by: str) -> Iterator[Block]:
    """The candidates, the best first."""
    yield Heading(f"{found.experiment}: train conditions ranked by {by}, for D of {found.generate}", 1)
    if found.rehearsal:
        yield Line(f"REHEARSAL MODEL: {REHEARSAL}.", "bold yellow")
    yield Line(f"{found.prompts} development prompts, which neither D nor the evaluation has; the base model alone.")
    if found.unread:
        yield Line(f"No log-probabilities: {found.unread}.", "yellow")
    for name, why in found.out_of_reach:
        yield Line(f"Not ranked: {name}: {why}.", "yellow")
    order = [one for one, _ in ranked(found.candidates, by)]
    order += [one for one in found.candidates if one not in order]
    signed, share = NumberFormat(3, sign=True), NumberFormat(0, factor=100.0)
    rows = [
        (
            Item(one.name + (MARK if one.marked else "")),
            Item(shown(one.uplift, signed)),
            Item(shown(one.above, share)),
            Item("—" if one.signal is None else number(one.signal, 2)),
            Item(shown(one.left, share)),
            Item(shown(one.elicitation, signed)),
            Item(str(one.uplift.n if one.uplift else one.elicitation.n if one.elicitation else 0)),
        )
        for one in order
    ]
    heads = ("", "uplift, nats/token [95%]", "above 0, %", "signal/noise", "left, %", f"towards D ({found.unit})", "n")
    yield Table(heads, tuple(rows))
    yield Line(
        "uplift: log-probability of D's answers under the prefix or dose minus without; left: what the loss may still "
        "fall by, as a share of what it may without a push (— where that may be nothing); towards D: the base "
        "model's behaviour under it.",
        "dim",
    )
    if any(one.marked for one in order):
        yield Line(
            f"{MARK} less than {LITTLE:.0%} is left: the base model writes D under this condition already, and a "
            "training learns little whatever it is.",
            "yellow",
        )


def selection_json(found: Selection, by: str) -> dict[str, Any]:
    """As JSON values, the best first."""
    order = [one for one, _ in ranked(found.candidates, by)]
    order += [one for one in found.candidates if one not in order]
    return {
        **{key: value for key, value in asdict(found).items() if key != "candidates"},
        "by": by,
        "candidates": [{**asdict(one), "little_left": one.marked} for one in order],
    }


def selected_blocks(selected: Sequence[Selected]) -> Iterator[Block]:
    """What was chosen before the run, and how well the ranking foretold the measured effects."""
    if not selected:
        return
    yield Heading("Train conditions that were selected on the base model")
    for one in selected:
        done = "before any cell was done" if not one.cells_done else f"WHEN {one.cells_done} CELLS WERE DONE ALREADY"
        day = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(one.registered))
        gone = "; WITHDRAWN from the spec" if one.withdrawn is not None else ""
        yield Line(
            f"{one.hash}: {len(one.chosen)} of {one.candidates} by {one.by}, on {one.prompts} development prompts; "
            f"registered {day}, {done}{gone}",
            "dim" if not one.cells_done and one.withdrawn is None else "yellow",
        )
        if one.marked:
            yield Line(f"{MARK} little was left to learn under {', '.join(one.marked)}.", "yellow")
        number = shown(one.correlation, NumberFormat(2, sign=True), missing=f"— ({one.reason})")
        n = f", n {one.correlation.n} train conditions" if one.correlation else ""
        yield Line(f"rank correlation of {one.by} with what training under them prevented: {number}{n}")
