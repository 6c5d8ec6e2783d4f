"""The report as text: drawn by rich for a terminal, and as Markdown."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

from windowshift.core.contract import sanitise
from windowshift.core.report.blocks import report_blocks
from windowshift.core.report.page import ASCII, GAP, Block, Heading, Line, Table, column_widths, fit
from windowshift.core.report.report import Report

if TYPE_CHECKING:
    from rich.console import RenderableType

NARROWEST = 40


def draw(blocks: Sequence[Block], width: int, *, color: bool = False, ascii_only: bool = False) -> str:
    """Draw headings, lines and tables with rich; without markup, so that names stay text."""
    from rich.console import Console
    from rich.text import Text

    width = max(width, NARROWEST)
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        legacy_windows=False,
        highlight=False,
        no_color=not color,
    )

    def say(text: str) -> str:
        text = sanitise.block(text, len(text))
        return text.translate(ASCII) if ascii_only else text

    for block in blocks:
        if isinstance(block, Heading):
            console.print()
            console.print(Text(say(block.text), style="bold"))
            if block.level == 1:
                console.print(Text(("=" if ascii_only else "━") * min(width, len(block.text))))
        elif isinstance(block, Line):
            console.print(Text(say(block.text), style=block.style))
        else:
            for table in fit(block, width):
                console.print(_rich_table(table, width, say, color))
    return "\n".join(line.rstrip() for line in out.getvalue().strip("\n").split("\n")) + "\n"


def _rich_table(table: Table, width: int, say: Callable[[str], str], color: bool) -> RenderableType:
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=None, pad_edge=False, padding=(0, GAP, 0, 0), show_header=True, header_style="dim")
    for index, (head, wide) in enumerate(zip(table.heads, column_widths(table), strict=True)):
        # Labels fold before numbers do: a cut number would be another number.
        drawn.add_column(
            Text(say(head)),
            justify="right" if index else "left",
            min_width=min(wide, width // 2) if index else None,
            overflow="fold",
            vertical="bottom",
        )
    for row in table.rows:
        drawn.add_row(*(Text(say(item.text), style=item.style if color else "") for item in row))
    return drawn


def print_report(report: Report, file: TextIO | None = None, *, width: int | None = None) -> None:
    """Print a report; colours on a terminal, ASCII where the output cannot take more."""
    print_blocks(lambda wide: report_blocks(report, wide), file, width=width)


def print_blocks(
    blocks: Callable[[int], Iterable[Block]] | Iterable[Block],
    file: TextIO | None = None,
    *,
    width: int | None = None,
) -> None:
    """Print blocks, or what makes them for a width, as `print_report` does."""
    from rich.console import Console

    out = sys.stdout if file is None else file
    console = Console(file=out)
    encoding = (getattr(out, "encoding", None) or "utf-8").lower().replace("-", "").replace("_", "")
    ascii_only = not encoding.startswith("utf")
    color = console.is_terminal and console.color_system is not None
    wide = max(width or console.width, NARROWEST)
    made = list(blocks(wide) if callable(blocks) else blocks)
    text = draw(made, width or console.width, color=color, ascii_only=ascii_only)
    if ascii_only:
        text = text.encode(encoding, errors="replace").decode(encoding)
    out.write(text)


def markdown(report: Report) -> str:
    """The report as Markdown, with every interval."""
    parts = []
    for block in report_blocks(report, None):
        if isinstance(block, Heading):
            parts.append(f"{'#' * block.level} {_escape(block.text)}")
        elif isinstance(block, Line):
            text = _escape(block.text)
            parts.append(f"**{text}**" if "bold" in block.style else text)
        else:
            parts.append(_markdown_table(block))
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    rows = [[_escape(head.replace("\n", " ")) for head in table.heads], ["---", *["---:"] * (len(table.heads) - 1)]]
    rows += [[_escape(item.text) for item in row] for row in table.rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _escape(text: str) -> str:
    text = sanitise.line(text, len(text))
    for character in "\\`*_|<[]":
        text = text.replace(character, f"\\{character}")
    return text
