"""The parts of the steering screen: each a title, its lines for a width, and the table that is copied."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from windowshift.core.contract import sanitise
from windowshift.core.contract.records import JobKind
from windowshift.tui.read.steering_snapshot import SteeringSnapshot
from windowshift.tui.screens.steering.vector_lines import cosine_lines, cosine_table, vector_lines, vector_table
from windowshift.tui.text.pieces import Pieces
from windowshift.tui.text.table import TextTable, table
from windowshift.tui.text.theme import Ink
from windowshift.tui.text.words import wrapped
from windowshift.tui.widgets.block_lines import block_lines, first_table

if TYPE_CHECKING:
    from windowshift.core.measure.arm_comparison import ArmsComparison, PairedRow
    from windowshift.core.measure.steering_results import SteeringResults
    from windowshift.core.report.page import Block

SteeringPart = Literal["vectors", "cosines", "layers", "doses", "matches", "controls", "arms", "pairs", "inside"]
PARTS: tuple[SteeringPart, ...] = ("vectors", "cosines", "layers", "doses", "matches", "controls", "arms", "pairs")
"""What every experiment that steers has; one that reads inside the model has `inside` behind them."""
MADE_BY: dict[SteeringPart, tuple[JobKind, ...]] = {
    "layers": ("sweep",),
    "doses": ("dose",),
    "matches": ("match", "iso_kl"),
}
"""The jobs whose troubles a part tells; vectors tell their own."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What the screen shows: a snapshot, the chosen vector, the arms side by side (or why not yet), the chosen pair."""

    snapshot: SteeringSnapshot
    vector: str
    arms: ArmsComparison | None
    waiting: str
    pair: int

    @property
    def paired(self) -> PairedRow | None:
        """The chosen matched pair."""
        rows = self.arms.rows if self.arms else ()
        return rows[self.pair % len(rows)] if rows else None


def parts_of(found: SteeringSnapshot) -> tuple[SteeringPart, ...]:
    """Return the parts that an experiment has."""
    return (*PARTS, "inside") if found.inside else PARTS


def part_lines(part: SteeringPart, shown: Shown, width: int, ink: Ink, *, few_colours: bool = False) -> list[Pieces]:
    """Return the lines of a part."""
    found = shown.snapshot
    if part == "vectors":
        lines = vector_lines(found, shown.vector, width, ink)
    elif part == "cosines":
        lines = cosine_lines(found, shown.vector, width, ink, few_colours)
    else:
        lines = block_lines(_blocks(part, shown), width, ink)
    for one in found.unfinished:
        if one.kind in MADE_BY.get(part, ()):
            text = sanitise.line(f"{one.label}: {one.state}{f': {one.error}' if one.error else ''}", 600)
            style = ink.bad if one.state == "failed" else ink.dim
            lines += [[], *([(" ", style), *line] for line in wrapped([(text, style)], max(20, width - 2)))]
    return lines


def part_table(part: SteeringPart, shown: Shown) -> TextTable | None:
    """Return the table of a part; None where there is none."""
    if part == "vectors":
        return vector_table(shown.snapshot)
    if part == "cosines":
        return cosine_table(shown.snapshot, shown.vector)
    if part in ("arms", "pairs"):
        return _arms_table(shown.arms) if shown.arms else None
    return first_table(_blocks(part, shown))


def _blocks(part: SteeringPart, shown: Shown) -> list[Block]:
    from windowshift.core.report import arm_comparison_page, steering_blocks
    from windowshift.core.report.page import Line

    found, name = shown.snapshot, shown.vector
    results, behaviour = found.results, found.behaviour
    blocks: Iterable[Block] = ()
    if part == "layers":
        blocks = [block for sweep in found.sweeps(name) for block in steering_blocks.sweep_blocks(sweep, behaviour)]
        blocks = blocks or [Line(_no_sweep(found, name), "dim")]
    elif part == "doses":
        curves = found.curves(name)
        blocks = [block for curve in curves for block in steering_blocks.curve_blocks(curve, behaviour, results)]
        blocks = blocks or [Line(_no_curve(found, name), "dim")]
    elif part == "matches":
        own = tuple(one for one in results.matches if one.vector == name)
        kls = tuple(one for one in results.iso_kl if one.vector == name)
        blocks = [
            *(steering_blocks.match_blocks(own, behaviour, results) if own else ()),
            *(steering_blocks.iso_kl_blocks(kls, behaviour) if kls else ()),
        ] or [Line(f"No dose of '{name}' is matched.", "dim")]
    elif part == "controls":
        none = [Line("No control is evaluated: a spec takes  vectors: {random: {control: random, of: NAME}}", "dim")]
        blocks = steering_blocks.control_blocks(results, behaviour) if results.controls else none
        blocks = [*blocks, *_proofs(results)]
    elif part == "inside":
        blocks = _inside(found, name)
    elif shown.arms is None:
        blocks = [Line(shown.waiting, "dim")]
    elif part == "arms" or shown.paired is None:
        blocks = arm_comparison_page.average_blocks(shown.arms)
    else:
        blocks = [*arm_comparison_page.pair_blocks(shown.arms, shown.paired), *_every_pair(shown.arms)]
    return list(blocks)


def _inside(found: SteeringSnapshot, name: str) -> list[Block]:
    """What was read along a vector."""
    from windowshift.core.report.inside_blocks import inside_blocks
    from windowshift.core.report.page import Line

    own = found.inside.along(name)
    none: list[Block] = [Line(f"Nothing is read along '{name}': inside.vectors of the spec leaves it out.", "dim")]
    return list(inside_blocks(own, None)) if own else none


def _no_sweep(found: SteeringSnapshot, name: str) -> str:
    line, layer = found.vector(name), found.layer(name)
    if any(one.kind == "sweep" for one in found.unfinished):
        return f"The layer sweep of '{name}' is not done."
    if line.of is not None:
        return f"'{name}' controls '{line.of}' and is used at its layer" + ("." if layer is None else f", {layer}.")
    return f"No layers of '{name}' were swept" + ("." if layer is None else f": it is used at layer {layer}.")


def _no_curve(found: SteeringSnapshot, name: str) -> str:
    if any(one.kind == "dose" for one in found.unfinished):
        return f"The dose curve of '{name}' is not measured yet."
    return f"No dose curve of '{name}' was measured: a spec asks for one with  match: [...]  or  layer: auto"


def _proofs(results: SteeringResults) -> list[Block]:
    """What was pushed, added up by vector, layer and way of pushing, beside what was asked for."""
    from windowshift.core.contract.number_format import number
    from windowshift.core.contract.proof import total
    from windowshift.core.report.page import Heading, Item, Line, Table
    from windowshift.core.report.steering_blocks import fired_blocks

    heading = Heading("Proofs that the pushes fired")
    if not results.fired:
        return [heading, Line("No job under a dose is done yet.", "dim")]
    rows = []
    parts = total(fired for _, fired in results.fired)
    for one in sorted(parts, key=lambda part: (part.vector, part.layer, part.ablate)):
        jobs = sum(
            (each.vector, each.layer, each.ablate) == (one.vector, one.layer, one.ablate) for _, each in results.fired
        )
        alphas = "projected out" if one.ablate else f"{number(one.alpha_low, 2)} … {number(one.alpha_high, 2)}"
        whole = (one.calls, one.tokens) == (one.calls_asked, one.tokens_asked)
        texts = (
            f"{one.vector}, layer {one.layer}",
            alphas,
            str(jobs),
            f"{one.calls:,} of {one.calls_asked:,}",
            f"{one.tokens:,} of {one.tokens_asked:,}",
            f"{number(one.change)} of {number(one.change_asked)}",
        )
        rows.append(tuple(Item(text, "" if whole else "red") for text in texts))
    heads = ("pushed with", "alphas", "jobs", "hook calls", "tokens", "mean change")
    return [heading, Table(heads, tuple(rows)), *fired_blocks(results)]


def _every_pair(found: ArmsComparison) -> list[Block]:
    """The differences of every pair, measure by measure."""
    from windowshift.core.measure.arm_comparison import AVERAGED
    from windowshift.core.report.arm_comparison_page import format_of, label_of, measures_of
    from windowshift.core.report.page import Heading, Item, Table, shown

    rows, measures = [], measures_of(AVERAGED, found.scale)
    for row in found.rows:
        name = f"{row.pair.prefix}, {row.pair.generate} data" if len(_sources(found)) > 1 else row.pair.prefix
        differences = [
            shown(row.measures[measure].difference, format_of(measure, found.scale, difference=True))
            for measure in measures
        ]
        rows.append((Item(name), *map(Item, differences)))
    heads = ("trained under", *(label_of(measure, found.scale) for measure in measures))
    return [Heading("Every pair: steering − prefix"), Table(heads, tuple(rows))]


def _sources(found: ArmsComparison) -> set[str]:
    return {row.pair.generate for row in found.rows}


def _arms_table(found: ArmsComparison) -> TextTable:
    """Return the average and every pair as one table."""
    from windowshift.core.measure.arm_comparison import ARM_MEASURES, AVERAGED
    from windowshift.core.report.arm_comparison_page import measures_of, measures_table

    scale = found.scale
    averaged, every = measures_of(AVERAGED, scale), measures_of(ARM_MEASURES, scale)
    parts = [("average", "", measures_table([(name, found.average[name]) for name in averaged], scale))]
    for row in found.rows:
        pair = f"{row.pair.prefix} | {row.pair.steering}"
        parts.append((pair, row.pair.generate, measures_table([(name, row.measures[name]) for name in every], scale)))
    heads = ("trained under", "data", *parts[0][2].heads)
    return table(heads, [(pair, data, *(item.text for item in row)) for pair, data, one in parts for row in one.rows])


def stacked(
    parts: tuple[SteeringPart, ...],
    chosen: SteeringPart,
    shown: Shown,
    ink: Ink,
    few_colours: bool,
    width: int,
) -> list[Pieces]:
    """Return parts one under the other; where there are several, each under its name."""
    lines: list[Pieces] = []
    for number, part in enumerate(parts):
        if len(parts) > 1:
            name: Pieces = [(f"── {part} ", ink.accent if part == chosen else ink.dim)]
            lines += [*([[]] if number else []), [*name, ("─" * max(0, width - len(part) - 4), ink.faint)]]
        lines += part_lines(part, shown, width, ink, few_colours=few_colours)
    return lines
