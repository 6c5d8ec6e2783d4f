"""Text in a CSV file that people open in a spreadsheet, which runs what looks like a formula."""

from __future__ import annotations

import re

_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def quoted(text: str) -> str:
    """Return a text with `'` before it where a spreadsheet would run it; numbers as text stay numbers.

    Those are texts that begin with = + - @, their full-width forms, a tab or a line end (OWASP, "CSV injection").
    Take one `'` away from what begins with `'` and one of these to have the text back, whatever it was.
    """
    if not _FORMULA.match(text) or _number(text):
        return text
    return f"'{text}"


def _number(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", text, re.ASCII) is not None
