"""Sentences that wrap."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from windowshift.tui.text.pieces import Piece, Pieces


def wrapped(pieces: Sequence[Piece], width: int) -> list[Pieces]:
    """Break pieces into lines of at most `width` columns, at spaces; `\u00a0` keeps words together."""
    lines: list[Pieces] = [[]]
    room = width
    for text, style in pieces:
        for word in _words(text):
            size = cell_len(word.rstrip(" "))
            if size > room and lines[-1]:
                lines.append([])
                room = width
                word = word.lstrip(" ")
            if word:
                lines[-1].append((word.replace("\u00a0", " "), style))
                room -= cell_len(word)
    return lines


def _words(text: str) -> list[str]:
    """Split before every word, its leading spaces with it."""
    words: list[str] = []
    for part in text.split(" "):
        words.append(part if not words else f" {part}")
    return words
