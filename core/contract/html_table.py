"""What notebooks show in place of a repr: lines and one table as HTML, with every text escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence

from windowshift.core.contract import sanitise

MOST_ROWS = 60
"""Rows of one table; the rest is counted, not shown."""


def html_page(title: str, lines: Sequence[str], heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A title, paragraphs and a table; line ends within a cell are kept, and nothing in a text is markup.

    Args:
        title: in bold.
        lines: paragraphs under it.
        heads: of the columns; without rows there is no table.
        rows: as many texts each as there are heads.
    """
    found = [f"<p><b>{_text(title)}</b></p>", *(f"<p>{_text(line)}</p>" for line in lines)]
    if rows:
        head = "".join(f"<th>{_text(name)}</th>" for name in heads)
        body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows[:MOST_ROWS])
        found.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
    if len(rows) > MOST_ROWS:
        found.append(f"<p>… {len(rows) - MOST_ROWS:,} more rows</p>")
    return f"<div>{''.join(found)}</div>"


def _cell(text: str) -> str:
    return f'<td style="text-align: left; white-space: pre-wrap">{_text(text)}</td>'


def _text(text: str) -> str:
    return html.escape(sanitise.block(text, 2000))
