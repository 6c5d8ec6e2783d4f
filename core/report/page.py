"""The report as a page: headings, lines and tables of text, before a terminal or Markdown draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.number_format import NumberFormat

ASCII = str.maketrans({"−": "-", "²": "2", "±": "~", "†": "!", "→": ">", "·": "-", "…": "~", "–": "-", "—": "-"})
"""What a terminal that is not UTF-8 shows instead, one character for one, so that columns keep their width."""


@dataclass(frozen=True, slots=True)
class Item:
    """A cell of a table: its text, and a rich style."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Column heads and rows; the first column is labels, the others are numbers."""

    heads: tuple[str, ...]
    rows: tuple[tuple[Item, ...], ...]


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading, of level 1 or 2."""

    text: str
    level: int = 2


@dataclass(frozen=True, slots=True)
class Line:
    """A paragraph."""

    text: str
    style: str = ""


Block = Heading | Line | Table


def with_interval(one: Estimate | None, decimals: int | None = None) -> str:
    """An estimate with its interval; a dash where there is none."""
    return shown(one, NumberFormat(decimals))


def shown(one: Estimate | None, form: NumberFormat, *, unit: bool = False, missing: str = "—") -> str:
    """An estimate with its interval as a scale writes it; `missing` where there is none."""
    return missing if one is None else form.whole(one, unit=unit)


def compared(
    one: Estimate | None, form: NumberFormat, mark: str | None = None, dagger: str = ""
) -> tuple[Item, Item, Item]:
    """A cell against another one in three ways: with its interval, half of its width, and whether it leaves out 0.

    `mark` says the last in the words of a family of claims, `dagger` stands before a star where nothing else is given.
    """
    if one is None:
        return (Item("·", "dim"),) * 3
    text = form.text(one.value)
    if one.low is None or one.high is None:
        return (Item(text),) * 3
    sure = one.low > 0 or one.high < 0
    style = ("red" if one.value > 0 else "blue") if sure else ""
    half = replace(form, sign=False).text((one.high - one.low) / 2)
    mark = dagger + ("*" if sure else "") if mark is None else mark
    return Item(form.whole(one) + mark, style), Item(f"{text} ±{half}{mark}", style), Item(f"{text}{mark:3}", style)


GAP = 2


def matrix(
    corner: str,
    rows: Sequence[tuple[str, Sequence[tuple[Item, ...]]]],
    columns: Sequence[str],
    width: int | None,
) -> tuple[Table, int]:
    """Make a matrix of the fullest items that fit a width; the barest have folded heads.

    Args:
        corner: the head of the labels.
        rows: a label and, for each column, the same item in several ways, from the fullest to the barest.
        columns: their heads.
        width: of the terminal; None: as wide as need be.

    Returns:
        The table, and which of the ways its items are in.
    """
    ways = max((len(item) for _, items in rows for item in items), default=1)
    for way in range(ways - 1):
        table = Table((corner, *columns), tuple((Item(name), *(item[way] for item in items)) for name, items in rows))
        if width is None or table_width(table) <= width:
            return table, way
    heads = (corner, *(column.replace("_", "_\n") for column in columns))
    return Table(heads, tuple((Item(name), *(item[-1] for item in items)) for name, items in rows)), ways - 1


def fit(table: Table, width: int) -> list[Table]:
    """Cut a table into tables of fewer columns that fit a width, each with the labels.

    Labels may take half of the width and fold beyond it; a number never does.
    """
    label, *others = column_widths(table)
    if table_width(table) <= width:
        return [table]
    label = min(label, width // 2)
    blocks: list[list[int]] = [[]]
    used = label
    for index, wide in enumerate(others, 1):
        if blocks[-1] and used + wide + GAP > width:
            blocks.append([])
            used = label
        blocks[-1].append(index)
        used += wide + GAP
    return [
        Table(
            tuple(table.heads[i] for i in (0, *block)),
            tuple(tuple(row[i] for i in (0, *block)) for row in table.rows),
        )
        for block in blocks
    ]


def column_widths(table: Table) -> list[int]:
    """The width of each column in characters."""
    heads = [max(map(len, head.split("\n"))) for head in table.heads]
    return [max([head, *(len(row[i].text) for row in table.rows)]) for i, head in enumerate(heads)]


def table_width(table: Table) -> int:
    """The width of a table with its gaps."""
    return sum(column_widths(table)) + GAP * (len(table.heads) - 1)
