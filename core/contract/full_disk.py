"""A full disk, told from everything else that goes wrong while something is written."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from pathlib import Path

FULL_DISK = "the disk is full: free some space and try again"
_LEAST = 1 << 20  # bytes: about what SQLite needs beside the rows
_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Libraries of other languages pass on no number, only what the system said.
_WORDS = ("no space left on device", "disk is full", "disk quota exceeded", "file too large")


def is_full_disk(error: BaseException | None, folder: Path | None = None) -> bool:
    """Whether an error, or one that caused it, says that the disk is full, at a quota, or at a limit on file sizes.

    Args:
        error: what was raised.
        folder: where it was written to: SQLite does not always say why it could not, and then the room there does.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _NUMBERS:
            return True
        if isinstance(error, sqlite3.Error):
            code = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
            if code == sqlite3.SQLITE_FULL:
                return True
            if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and folder is not None and _no_room(folder):
                return True
        if any(words in str(error).lower() for words in _WORDS):
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def _no_room(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _LEAST
    except OSError:
        return False
