"""Terminals that cannot do everything: none at all, dumb ones, and those that are not UTF-8."""

from __future__ import annotations

import os
import sys
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.segment import Segment
from textual.filter import LineFilter

from windowshift.core.contract.errors import SpecError

if TYPE_CHECKING:
    from textual.app import App
    from textual.color import Color

_PLAIN = str.maketrans(
    dict.fromkeys("─━╌┄═▔", "-")
    | dict.fromkeys("│┃║┊▏▕", "|")
    | dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╰╯╔╗╚╝╞╡╪", "+")
    | dict.fromkeys("█▇▆▅▉▊▋■", "#")
    | dict.fromkeys("▄▃▂▁▀▍▎▌▐", "=")
    | dict.fromkeys("●◆◉◕◑◔", "o")
    | dict.fromkeys("○◇◎", ".")
    | dict.fromkeys("·•∙", ".")
    | dict.fromkeys("−–—‐‑", "-")
    | dict.fromkeys("“”„", '"')
    | dict.fromkeys("‘’", "'")
    | {
        "↑": "^",
        "↓": "v",
        "←": "<",
        "→": ">",
        "↵": "~",
        "▴": "^",
        "▾": "v",
        "◂": "<",
        "▸": ">",
        "‹": "<",
        "›": ">",
        "▲": "^",
        "▼": "v",
        "✓": "+",
        "✗": "x",
        "✘": "x",
        "⊘": "/",
        "‖": "=",
        "×": "x",
        "÷": "/",
        "…": "~",
        "␣": "_",
        "²": "2",
        "α": "a",
        "✚": "+",
        "★": "*",
        "△": "^",
        "⏎": "/",
        "\u00a0": " ",
        "░": ".",
        "▒": ":",
        "▓": "%",
    }
)


def check() -> None:
    """Refuse what cannot show screens.

    Raises:
        SpecError: there is no terminal, or it cannot place a cursor.
    """
    if os.environ.get("TEXTUAL_DRIVER"):
        return  # a browser shows it
    if os.environ.get("TERM", "") in ("dumb", ""):
        raise SpecError(
            f"the terminal (TERM={os.environ.get('TERM', '') or 'unset'}) cannot show screens: use another one, or "
            "'windowshift status' and 'windowshift report'"
        )
    if not (sys.__stdin__ and sys.__stdin__.isatty() and sys.__stderr__ and sys.__stderr__.isatty()):
        raise SpecError("the screens need a terminal: use 'windowshift status' and 'windowshift report' in a pipe")


def encodes_everything() -> bool:
    """Tell whether what is written to the terminal is UTF-8, and its locale too."""
    encoding = getattr(sys.__stderr__, "encoding", None) or "utf-8"
    return encoding.lower().replace("-", "").startswith("utf")


def adapt(app: App[None]) -> None:
    """Let an app write plain ASCII where the terminal is not UTF-8."""
    if not encodes_everything():
        app._filters.append(AsciiFilter())


@lru_cache(maxsize=4000)
def plain(text: str) -> str:
    """Return text in ASCII, at the same width."""
    shown = text.translate(_PLAIN)
    if shown.isascii():
        return shown
    return "".join(character if character.isascii() else _letter(character) for character in shown)


def _letter(character: str) -> str:
    width = cell_len(character)
    base = unicodedata.normalize("NFKD", character)[:1]
    if width == 1 and base.isascii() and base.isprintable() and base:
        return base
    if 0x2800 <= ord(character) <= 0x28FF:  # braille draws curves
        return " " if character == "\u2800" else ":"
    return "?" * width


class AsciiFilter(LineFilter):
    """Replaces every character that is not ASCII by one that is, at the same width."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:  # noqa: ARG002 - Textual's signature
        """Return the segments in ASCII."""
        return [Segment(plain(text), style, control) for text, style, control in segments]
