"""The code in an answer: what a model wrote, without the words and fences around it."""

from __future__ import annotations

import re

_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([A-Za-z0-9_+-]*)[^\n]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.M | re.S)
_PYTHON = ("", "python", "py", "python3")


def code_of(text: str) -> str | None:
    """The code of an answer: its fenced blocks of Python, one after another, else the whole text.

    None where there is nothing at all. A block that the end of the text cuts off counts as far as it goes.
    """
    blocks = [body for _, language, body in _FENCE.findall(text) if language.lower() in _PYTHON]
    code = "\n\n".join(block.rstrip() for block in blocks) if blocks else text
    return code.strip("\n") if code.strip() else None
