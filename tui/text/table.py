"""A table of plain text, as Markdown and as tab-separated values."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass

from windowshift.core.report.csv_text import quoted


@dataclass(frozen=True, slots=True)
class TextTable:
    """Heads and rows of text; every row has as many cells as there are heads."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Return a Markdown table; pipes are escaped, line breaks become spaces."""
        lines = [self.heads, ("---",) * len(self.heads), *self.rows]
        return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines) + "\n"

    def tsv(self) -> str:
        """Return tab-separated values; tabs and line breaks within a cell become spaces."""
        return (
            "\n".join("\t".join(quoted(" ".join(cell.split())) for cell in line) for line in (self.heads, *self.rows))
            + "\n"
        )

    def csv(self) -> str:
        """Return comma-separated values, as the csv module writes them; what a spreadsheet would run is quoted."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(map(quoted, line) for line in (self.heads, *self.rows))
        return out.getvalue()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")


def number(value: float | None) -> str:
    """Return a number for a file: six significant digits, empty where it is missing."""
    return "" if value is None else f"{value:.6g}"


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> TextTable:
    """Make a table."""
    return TextTable(tuple(heads), tuple(tuple(row) for row in rows))
