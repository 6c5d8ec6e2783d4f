"""The report's blocks (headings, paragraphs, tables) as drawn lines, so that a screen and a report say the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.style import Style

from windowshift.tui import sanitise
from windowshift.tui.pieces import Pieces, fit
from windowshift.tui.table import Table, table
from windowshift.tui.theme import Ink
from windowshift.tui.words import wrapped

if TYPE_CHECKING:
    from windowshift.core.report_page import Block
    from windowshift.core.report_page import Table as PageTable


def block_lines(blocks: Iterable[Block], width: int, ink: Ink) -> list[Pieces]:
    """Return blocks as lines of at most `width` columns; a table that is too wide is cut into several."""
    from windowshift.core import report_page

    room = max(20, width - 2)
    lines: list[Pieces] = []
    for block in blocks:
        if isinstance(block, report_page.Heading):
            lines += [[], *_indented(wrapped([(sanitise.line(block.text, 400), ink.strong)], room))]
        elif isinstance(block, report_page.Line):
            lines += _indented(wrapped([(sanitise.line(block.text, 1000), style_of(block.style, ink))], room))
        else:
            for number, part in enumerate(report_page.fit(block, room)):
                lines += [[]] if number else []
                lines += _table(part, room, ink)
    return lines[1:] if lines and not lines[0] else lines


def first_table(blocks: Iterable[Block]) -> Table | None:
    """Return the first table of some blocks, for copying; None where there is none."""
    from windowshift.core import report_page

    found = next((block for block in blocks if isinstance(block, report_page.Table)), None)
    return None if found is None else table(found.heads, ([item.text for item in row] for row in found.rows))


def style_of(style: str, ink: Ink) -> Style:
    """Return a report's style in the theme's inks."""
    named = {"dim": ink.dim, "red": ink.bad, "yellow": ink.warn, "bold yellow": ink.warn, "bold": ink.strong}
    return named.get(style, ink.text)


def _indented(lines: Iterable[Pieces]) -> list[Pieces]:
    return [[(" ", piece[0][1]), *piece] if piece else [] for piece in lines]


def _table(found: PageTable, room: int, ink: Ink) -> list[Pieces]:
    from windowshift.core.report_page import GAP, column_widths

    widths = column_widths(found)
    # Labels give way before numbers do: a cut number would be another number.
    widths[0] = min(widths[0], max(8, room - sum(widths[1:]) - GAP * (len(widths) - 1)))
    lines: list[Pieces] = [
        [(" ", ink.dim), *(piece for i, head in enumerate(found.heads) for piece in _cell(head, i, widths, ink.dim))]
    ]
    for row in found.rows:
        line: Pieces = [(" ", ink.text)]
        for i, item in enumerate(row):
            line += _cell(sanitise.line(item.text, 300), i, widths, style_of(item.style, ink))
        lines.append(line)
    return lines


def _cell(text: str, column: int, widths: list[int], style: Style) -> Pieces:
    shown = fit(text.replace("\n", " "), widths[column], "right" if column else "left")
    return [(shown, style), ("  ", style)]
