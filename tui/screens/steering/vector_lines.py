"""Vectors as drawn lines: where each comes from, its norms layer by layer, and its cosines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from windowshift.core.contract import sanitise
from windowshift.tui.read.cell_labels import labels
from windowshift.tui.read.steering_snapshot import CosineRows, SteeringSnapshot
from windowshift.tui.text import formats
from windowshift.tui.text.pieces import Pieces, fit
from windowshift.tui.text.table import TextTable, number, table
from windowshift.tui.text.theme import Ink, scale, step_of
from windowshift.tui.text.words import wrapped

if TYPE_CHECKING:
    from windowshift.core.contract.vector_file import VectorHeader
    from windowshift.core.measure.steering_results import VectorLine

_BARS = "▁▂▃▄▅▆▇█"
_CELL = 6


def vector_lines(found: SteeringSnapshot, chosen: str, width: int, ink: Ink) -> list[Pieces]:
    """Return every vector, and all that is known of the chosen one."""
    lines: list[Pieces] = []
    for one in found.results.vectors:
        here = one.name == chosen
        name = sanitise.line(one.name, 60)
        head: Pieces = [(f" {'▸' if here else ' '} {fit(name, 14)} ", ink.strong if here else ink.text)]
        if one.header is None:
            lines += _paragraph(head, [(sanitise.line(one.problem or "not made yet", 400), ink.bad)], 18, width)
            continue
        layer = found.layer(one.name)
        use = "no layer chosen yet" if layer is None else f"layer {layer}"
        head.append((sanitise.line(_made(one), 100), ink.text))
        lines += [head, [(" " * 18, ink.dim), (_sides(one.header), ink.dim)]]
        lines.append([(" " * 18, ink.dim), ("norms ", ink.dim), *_bars(one.header, layer, ink), (f"  {use}", ink.dim)])
    line = found.vector(chosen)
    if line.header is not None:
        lines += [[], *_details(found, line, line.header, width, ink)]
    return lines


def _made(one: VectorLine) -> str:
    how = one.header.provenance.how if one.header else ""
    return how if one.of is None else f"{how}, control of {one.of}"


def _sides(header: VectorHeader) -> str:
    origin = header.provenance
    parts = [f"{origin.positive} − {origin.negative}"] if origin.positive else []
    parts += [f"{origin.tokens} tokens"] if origin.tokens else []
    if origin.positive_count:
        parts.append(f"n {origin.positive_count} + {origin.negative_count} rows")
    return sanitise.line(" · ".join(parts) or "nothing is known of its making", 200)


def _bars(header: VectorHeader, layer: int | None, ink: Ink) -> Pieces:
    """Return a bar a layer, the one in use apart."""
    most = max(header.norms) or 1.0
    pieces: Pieces = []
    for place, norm in enumerate(header.norms):
        bar = _BARS[min(7, int(norm / most * 7.999))]
        pieces.append((bar, ink.accent if place == layer else ink.blue))
    return pieces


def _details(found: SteeringSnapshot, line: VectorLine, header: VectorHeader, width: int, ink: Ink) -> list[Pieces]:
    origin, used = header.provenance, found.layer(line.name)
    known = [
        ("model", f"{origin.model} ({origin.fingerprint[:12]})"),
        ("prompts", origin.prompts),
        ("made of", ", ".join(origin.parents)),
        *origin.details.items(),
        ("file", line.file or ""),
    ]
    lines: list[Pieces] = [[(f" {sanitise.line(line.name, 60)}", ink.strong), (": layer by layer", ink.dim)]]
    heads = ("layer", "norm", "residual RMS", "dose of alpha 1")
    lines.append([(" " + fit(heads[0], 8) + "".join(f"{head:>17}" for head in heads[1:]), ink.dim)])
    for layer, norm in enumerate(header.norms):
        rms = header.rms[layer] if header.rms else None
        dose = formats.NOTHING if not rms else f"{norm / rms:.3f}"
        values = (f"{norm:.3g}", formats.NOTHING if rms is None else f"{rms:.3g}", dose)
        style = ink.strong if layer == used else ink.text
        mark = "▸" if layer == used else " "
        lines.append([(f" {mark}{fit(str(layer), 7)}" + "".join(f"{value:>17}" for value in values), style)])
    if header.rms is None:
        lines += _paragraph(
            [(" ", ink.dim)], [("The residual stream was not measured: doses are unknown.", ink.warn)], 1, width
        )
    for name, text in known:
        if text:
            label: Pieces = [(f" {fit(sanitise.line(name, 30), 10)} ", ink.dim)]
            lines += _paragraph(label, [(sanitise.line(text, 400), ink.text)], 12, width)
    return lines


def _paragraph(head: Pieces, text: Pieces, indent: int, width: int) -> list[Pieces]:
    first, *rest = wrapped(text, max(20, width - indent - 1)) or [[]]
    return [[*head, *first], *([(" " * indent, head[0][1]), *line] for line in rest)]


def vector_table(found: SteeringSnapshot) -> TextTable:
    """Return the vectors with their norms, one row a layer."""
    heads = (
        "vector",
        "made as",
        "positive",
        "negative",
        "tokens",
        "rows +",
        "rows −",
        "layer",
        "norm",
        "residual RMS",
        "in use",
    )
    rows = []
    for one in found.results.vectors:
        if one.header is None:
            rows.append((one.name, one.problem or "not made yet", *[""] * 9))
            continue
        origin, used = one.header.provenance, found.layer(one.name)
        made = (one.name, _made(one), origin.positive, origin.negative, origin.tokens)
        counts = (str(origin.positive_count), str(origin.negative_count))
        for layer, norm in enumerate(one.header.norms):
            rms = one.header.rms[layer] if one.header.rms else None
            rows.append((*made, *counts, str(layer), number(norm), number(rms), "yes" if layer == used else ""))
    return table(heads, rows)


def cosine_lines(found: SteeringSnapshot, chosen: str, width: int, ink: Ink, few_colours: bool) -> list[Pieces]:
    """Return the cosines of the chosen vector: with the others at its layer, and across its layers."""
    own = found.cosines.get(chosen)
    if own is None or own.problem:
        why = own.problem if own else found.vector(chosen).problem
        reason = f"vector '{chosen}' cannot be compared: {why}"
        return _paragraph([(" ", ink.dim)], [(sanitise.line(reason or "", 400), ink.bad)], 1, width)
    lines: list[Pieces] = []
    if own.layer is None:
        lines.append([(" Between vectors: no layer is chosen yet", ink.dim)])
    else:
        lines.append([(f" Cosines between vectors at layer {own.layer}", ink.strong)])
        lines += _matrix(own.names, own.names, own.between, width, ink, few_colours)
    lines += [[], [(f" Cosines across the layers of {sanitise.line(chosen, 60)}", ink.strong)]]
    count = len(own.across)
    every = -(-count // max(1, (width - 14) // _CELL))  # a matrix that does not fit shows every second layer, or fewer
    kept = [layer for layer in range(count) if layer % every == 0 or layer == own.layer]
    shown = tuple(tuple(own.across[i][j] for j in kept) for i in kept)
    names = tuple(f"{layer}{'▸' if layer == own.layer else ''}" for layer in kept)
    lines += _matrix(names, names, shown, width, ink, few_colours)
    if every > 1:
        lines.append([(f" every {every} layers of {count}, and the one in use", ink.dim)])
    return [*lines, [], [(" ▸ the layer in use; · no direction there", ink.dim)]]


def _matrix(
    rows: Sequence[str], columns: Sequence[str], values: CosineRows, width: int, ink: Ink, few_colours: bool
) -> list[Pieces]:
    label = min(14, max(len(name) for name in rows) + 2)
    longest = max(len(name) for name in columns) + 1
    cell = max(_CELL, min(longest, 14, (width - label - 1) // max(1, len(columns))))
    room = max(1, (width - label - 1) // cell)
    heads = labels([sanitise.line(name, 40) for name in columns], cell - 1)[:room]
    names: Pieces = [(f"{fit(head, cell - 1, 'center')} ", ink.dim) for head in heads]
    lines: list[Pieces] = [[(" " * label, ink.dim), *names]]
    for name, row in zip(rows, values, strict=True):
        line: Pieces = [(fit(f" {sanitise.line(name, 40)}", label), ink.text)]
        for value in row[:room]:
            style = ink.faint if value is None else scale(step_of(max(-1.0, min(1.0, value))), ink.dark, few_colours)
            line += [(fit(formats.signed(value), cell - 1, "center"), style), (" ", ink.dim)]
        lines.append(line)
    if len(columns) > room:
        lines.append([(f" and {len(columns) - room} more", ink.dim)])
    return lines


def cosine_table(found: SteeringSnapshot, chosen: str) -> TextTable | None:
    """Return the cosines between vectors at the chosen one's layer; None where there are none."""
    own = found.cosines.get(chosen)
    if own is None or not own.between:
        return None
    rows = ((name, *map(number, row)) for name, row in zip(own.names, own.between, strict=True))
    return table((f"cosine at layer {own.layer}", *own.names), rows)
