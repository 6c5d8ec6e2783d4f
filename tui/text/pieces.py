"""Pieces of styled text: what every drawn line is made of. No markup is ever parsed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.strip import Strip

Piece = tuple[str, Style]
Pieces = list[Piece]

PLAIN = Style()


def fit(text: str, width: int, align: str = "left") -> str:
    """Return text at exactly `width` terminal columns, cut with an ellipsis or padded."""
    if width <= 0:
        return ""
    size = cell_len(text)
    if size > width:
        kept = set_cell_size(text, width - 1).rstrip()
        return kept + "…" + " " * (width - 1 - cell_len(kept))
    gap = width - size
    if align == "right":
        return " " * gap + text
    if align == "center":
        return " " * (gap // 2) + text + " " * (gap - gap // 2)
    return text + " " * gap


def length(pieces: Iterable[Piece]) -> int:
    """Return how many columns pieces take."""
    return sum(cell_len(text) for text, _ in pieces)


def strip(pieces: Iterable[Piece], width: int, under: Style = PLAIN) -> Strip:
    """Return pieces as a strip of exactly `width` columns, drawn over the style `under`."""
    return Strip([Segment(text, under + style) for text, style in pieces if text]).adjust_cell_length(width, under)


def spread(left: Sequence[Piece], right: Sequence[Piece], width: int) -> Pieces:
    """Return a line with pieces at both ends; where both do not fit, the left end is cut."""
    room = width - length(right)
    gap = room - length(left)
    if gap >= 1 or not right:
        return [*left, (" " * max(0, gap), PLAIN), *right]
    kept: Pieces = []
    room -= 1
    for text, style in left:
        size = cell_len(text)
        if size > room:
            kept.append((fit(text, room), style))
            room = 0
            break
        kept.append((text, style))
        room -= size
    return [*kept, (" " * (room + 1), PLAIN), *right]


def text_of(pieces: Iterable[Piece]) -> Text:
    """Return pieces as text that wraps, for a widget that lays it out."""
    return Text.assemble(*pieces, end="")
