"""Text that others wrote, made safe for a terminal: by the screens, and wherever the command line writes.

Server errors, model ids, values of a spec, file names, completions and a received store's texts can hold
escape sequences (a title, OSC 52 that writes the clipboard), C1 codes that act like them, and bidirectional
overrides that show another text than the one there is.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

LONGEST = 20_000
"""Characters of one text that a screen shows; the rest is counted, not shown."""

# Joiners and variation selectors only change how wide a terminal draws a glyph, never what it says.
_DROPPED = "\u200c\u200d\ufe0e\ufe0f"
_SUSPECT = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\ud800-\udfff\ufe0e\ufe0f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
_STACKED = re.compile(
    "([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]{3})"
    "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+"
)


def block(text: str, limit: int = LONGEST) -> str:
    """Return text of several lines without anything that a terminal obeys.

    Control characters become their pictures (ESC is ␛), bidirectional overrides and other
    invisible characters their code points, tabs four spaces; a text above `limit` characters is cut
    and says by how much.
    """
    cut = len(text) - limit
    if cut > 0:
        text = text[:limit]
    text = text.replace("\r\n", "\n").replace("\t", "    ")
    text = _STACKED.sub(r"\1", _SUSPECT.sub(_visible, text))
    return f"{text}\n… {cut:,} more characters" if cut > 0 else text


def line(text: str, limit: int = 400) -> str:
    """Return text as one line: newlines become ⏎, and what is over `limit` characters an ellipsis."""
    cut = len(text) > limit
    shown = block(text[:limit], limit).replace("\n", "⏎")
    return f"{shown}…" if cut else shown


def json_text(value: Any) -> str:
    """Return a value as JSON that reads back as it was and that a terminal only shows: what it would obey is escaped.

    Raises:
        ValueError: a number that JSON has not (NaN, an infinity).
    """
    return _SUSPECT.sub(_escaped, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def _escaped(match: re.Match[str]) -> str:
    return json.dumps(match.group())[1:-1]  # ASCII: \uXXXX, two of them above U+FFFF


def _visible(match: re.Match[str]) -> str:
    character = match.group()
    number = ord(character)
    if character in _DROPPED:
        return ""
    if number < 0x20:
        return chr(0x2400 + number)
    if number == 0x7F:
        return "␡"
    if character in "\u2028\u2029":
        return "\n"
    if unicodedata.category(character) == "Cs":
        return "�"
    return f"‹{number:02X}›" if number < 0x100 else f"‹U+{number:04X}›"
