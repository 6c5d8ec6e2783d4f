"""The log of a run: a file, in lines that a terminal only shows, and that no full disk turns into noise."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from windowshift.core.contract import sanitise
from windowshift.core.contract.redaction import without_keys

LONGEST = 200_000
"""Characters of one message, its traceback included."""


class LogFile(logging.FileHandler):
    """Writes what windowshift logs. Where it cannot be written any more, that is said once on stderr, and no more.

    Args:
        path: the file.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="replace")
        self.setFormatter(_Plain("%(asctime)s %(levelname)s %(name)s %(message)s"))
        self._said = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802  # as logging calls it
        """Say once that a line is lost; logging itself would print a traceback for each."""
        if self._said:
            return
        self._said = True
        error = sys.exc_info()[1]
        reason = sanitise.line(getattr(error, "strerror", None) or repr(error))
        if sys.stderr is not None:
            sys.stderr.write(f"the log {sanitise.line(self.baseFilename)} cannot be written ({reason})\n")


class _Plain(logging.Formatter):
    """Messages hold what others wrote: names, sentences of servers, values of a spec."""

    def format(self, record: logging.LogRecord) -> str:
        """A record as text without keys, and without anything that a terminal obeys."""
        return sanitise.block(without_keys(super().format(record)), LONGEST)
