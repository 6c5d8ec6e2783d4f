"""Failures of the store: what SQLite says, as one sentence with a remedy."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from windowshift.core.contract.errors import StoreError

_FULL_BELOW = 1 << 20  # SQLite needs about this much beside the rows: a page of index, the shared memory file


class UnusableError(StoreError):
    """What is wrong with a store, before the path is known; `naming` puts it in front."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into one sentence that names the store.

    Raises:
        StoreError: in place of any `sqlite3.Error`, and with the path in front of an `UnusableError`.
    """
    try:
        yield
    except UnusableError as error:
        raise StoreError(f"the store {path} cannot be used: {error}") from error
    except sqlite3.Error as error:
        raise StoreError(f"the store {path} {meaning(error, path)}") from error


def meaning(error: sqlite3.Error, path: Path) -> str:
    """Return what an error means for the store at `path`, and what to do, without a full stop."""
    text = str(error)
    # Errors that Python's own layer raises carry no code.
    code = getattr(error, "sqlite_errorcode", None) or 0
    match code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return _full(text)
        case sqlite3.SQLITE_IOERR:
            # A full disk also shows as a failed write of the shared memory file, or of a limit on file sizes.
            if _is_full(path):
                return _full(text)
            return (
                f"could not be read or written ({text}): the disk is full, at a quota, or failing; free some "
                "space and run the same command again, what was stored before is kept"
            )
        case sqlite3.SQLITE_READONLY:
            if code == sqlite3.SQLITE_READONLY_DBMOVED:
                return "was moved or deleted while it was open: put it back and run the same command again"
            return f"is read-only ({text}): make file and folder writable, or choose another workspace"
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            if _is_full(path):
                return _full(text)
            return (
                f"cannot be opened ({text}): make the file and its folder readable and writable, or copy the "
                "folder to a disk where they are"
            )
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return (
                f"is corrupt ({text}): restore it from a copy, or move it away and run again "
                "(finished artifacts beside it stay)"
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return "is locked by another process: wait for it, or stop it, and run the same command again"
    return f"failed: {text}"


def _full(text: str) -> str:
    return (
        f"could not be written ({text}): the disk is full; free some space and run the same command again, "
        "what was stored before is kept"
    )


def _is_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < _FULL_BELOW
    except OSError:
        return False
