"""The last stop before a terminal: whatever any library writes to stdout or stderr is shown and never obeyed.

Commands write through `windowshift.say`, which sanitises each text. Warnings, other libraries' logs and progress bars,
and the traceback of an error that nobody foresaw do not: they hold names and sentences of others all the same.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any

from windowshift.core.contract import sanitise
from windowshift.core.contract.redaction import without_keys

# What a progress bar and coloured text need: it moves within the last line or clears it, and nothing else.
_KEPT = re.compile(r"\x1b\[[0-9;]{0,24}[mKA-D]|\x1b\[\?25[lh]|\r\n|\r|\t")


class GuardedStream:
    """A text stream that writes what a terminal would obey as its picture.

    Args:
        stream: where it is written to; all else is asked of it.
    """

    def __init__(self, stream: Any) -> None:
        self.guarded = stream

    def write(self, text: str) -> int:
        """Write a text; the number of its characters."""
        self.guarded.write(shown(text) if isinstance(text, str) else text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write some texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.guarded, name)


def shown(text: str) -> str:
    """A text without keys, and without what a terminal obeys, but for colours and what moves within the last line."""
    text = without_keys(text)
    found: list[str] = []
    at = 0
    for kept in _KEPT.finditer(text):
        found += [sanitise.block(text[at : kept.start()], len(text)), kept.group()]
        at = kept.end()
    return "".join([*found, sanitise.block(text[at:], len(text))])


def guard() -> None:
    """Put the guard before this process's stdout and stderr, once."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, GuardedStream):
            setattr(sys, name, GuardedStream(stream))
