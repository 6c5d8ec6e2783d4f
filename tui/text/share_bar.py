"""Shares of a whole as a bar: one glyph and one colour a share, so that it is read without colours too."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.style import Style

from windowshift.tui.text.pieces import Piece, Pieces
from windowshift.tui.text.theme import Ink

FILLS = "█▓▒░▚▞"
REST = "·"
"""What no share covers."""


def look(number: int, ink: Ink) -> Piece:
    """Return the glyph and the style of a share by its place; the colours are those of the figure."""
    styles = (ink.accent, ink.blue, ink.good, ink.warn, ink.bad, ink.strong, ink.dim)
    return FILLS[number % len(FILLS)], styles[number % len(styles)]


def bar(shares: Sequence[float], width: int, ink: Ink, over: Style | None = None) -> Pieces:
    """Draw shares that sum to 1 at exactly `width` columns, the last one being what nothing covers.

    Columns go to the largest remainders; a share above 0 keeps a column where there are enough of them.
    """
    exact = [share * width for share in shares]
    columns = [max(math.floor(one), 1 if one > 0 else 0) for one in exact]
    while sum(columns) > width:
        columns[max(range(len(columns)), key=lambda n: (columns[n] > 1, columns[n] - exact[n], columns[n]))] -= 1
    while sum(columns) < width:
        columns[max(range(len(columns)), key=lambda n: exact[n] - columns[n])] += 1
    looks = [*(look(number, ink) for number in range(len(shares) - 1)), (REST, ink.dim)]
    return [(glyph * count, over or style) for count, (glyph, style) in zip(columns, looks, strict=True) if count]
