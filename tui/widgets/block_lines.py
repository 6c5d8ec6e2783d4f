"""The report's blocks (headings, paragraphs, tables) as drawn lines, so that a screen and a report say the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.style import Style

from windowshift.core.contract import sanitise
from windowshift.tui.text.pieces import Pieces, fit
from windowshift.tui.text.table import TextTable, table
from windowshift.tui.text.theme import Ink
from windowshift.tui.text.words import wrapped

if TYPE_CHECKING:
    from windowshift.core.report.page import Block, Table


def block_lines(blocks: Iterable[Block], width: int, ink: Ink) -> list[Pieces]:
    """Return blocks as lines of at most `width` columns; a table that is too wide is cut into several."""
    from windowshift.core.report import page

    room = max(20, width - 2)
    lines: list[Pieces] = []
    for block in blocks:
        if isinstance(block, page.Heading):
            lines += [[], *_indented(wrapped([(sanitise.line(block.text, 400), ink.strong)], room))]
        elif isinstance(block, page.Line):
            lines += _indented(wrapped([(sanitise.line(block.text, 1000), style_of(block.style, ink))], room))
        else:
            shown, notes = _noted(block, room)
            lines += _parts(shown, room, ink)
            for note in notes:
                lines += _indented(wrapped([(sanitise.line(note, 400), ink.dim)], room))
    return lines[1:] if lines and not lines[0] else lines


def _noted(found: Table, room: int) -> tuple[Table, list[str]]:
    """Where a table is too wide, take the reasons for missing values out of it: they become notes below."""
    from windowshift.core.report.page import Item, Table, table_width

    if table_width(found) <= room:
        return found, []
    notes: dict[str, None] = {}
    rows = []
    for row in found.rows:
        items = []
        for item in row:
            missing = item.text.startswith("— (")
            items.append(Item("—", item.style) if missing else item)
            if missing:
                notes[f"{row[0].text} —: {item.text[3:-1]}"] = None
        rows.append(tuple(items))
    return Table(found.heads, tuple(rows)), list(notes)


def first_table(blocks: Iterable[Block]) -> TextTable | None:
    """Return the first table of some blocks, for copying; None where there is none."""
    from windowshift.core.report import page

    found = next((block for block in blocks if isinstance(block, page.Table)), None)
    return None if found is None else table(found.heads, ([item.text for item in row] for row in found.rows))


def style_of(style: str, ink: Ink) -> Style:
    """Return a report's style in the theme's inks."""
    named = {"dim": ink.dim, "red": ink.bad, "yellow": ink.warn, "bold yellow": ink.warn, "bold": ink.strong}
    return named.get(style, ink.text)


def _indented(lines: Iterable[Pieces]) -> list[Pieces]:
    return [[(" ", piece[0][1]), *piece] if piece else [] for piece in lines]


def _parts(found: Table, room: int, ink: Ink) -> list[Pieces]:
    """Return a table's lines; it is set tighter where that lets it stay whole, else cut into several."""
    from windowshift.core.report.page import GAP, column_widths
    from windowshift.core.report.page import fit as cut

    if sum(column_widths(found)) + len(found.heads) - 1 <= room:
        tight = sum(column_widths(found)) + GAP * (len(found.heads) - 1) > room
        return _table(found, room, 1 if tight else GAP, ink)
    lines: list[Pieces] = []
    for part in cut(found, room):
        lines += [[], *_table(part, room, GAP, ink)]
    return lines[1:]


def _table(found: Table, room: int, gap: int, ink: Ink) -> list[Pieces]:
    from windowshift.core.report.page import column_widths

    widths = column_widths(found)
    # Labels give way before numbers do: a cut number would be another number.
    widths[0] = min(widths[0], max(8, room - sum(widths[1:]) - gap * (len(widths) - 1)))

    def line(texts: Iterable[tuple[str, Style]]) -> Pieces:
        pieces: Pieces = [(" ", ink.text)]
        for place, ((text, style), width) in enumerate(zip(texts, widths, strict=True)):
            pieces += [(fit(text, width, "right" if place else "left"), style), (" " * gap, style)]
        return pieces

    heads = line((head.replace("\n", " "), ink.dim) for head in found.heads)
    rows = (line((sanitise.line(item.text, 300), style_of(item.style, ink)) for item in row) for row in found.rows)
    return [heads, *rows]
