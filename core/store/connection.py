"""A workspace's store: one SQLite file in WAL mode, one writer, many readers."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from windowshift.core.contract.errors import StoreError
from windowshift.core.store import schema
from windowshift.core.store.failure import UnusableError, naming

__all__ = [
    "FILE_NAME",
    "identity",
    "is_older",
    "naming",
    "open_reader",
    "open_writer",
    "storable",
    "store_path",
    "to_json",
]

FILE_NAME = "windowshift.db"
PAGE_SIZE = 16384  # bytes: twice the inserts a second of SQLite's 4096, and long completions fit a page
CHECKPOINT = 2000  # pages of log (32 MB) before they move to the main file
_MAGIC = b"SQLite format 3\0"


def store_path(workspace: Path) -> Path:
    """Return the store file of a workspace folder."""
    return workspace / FILE_NAME


def open_writer(workspace: Path, *, timeout: float = 10.0) -> sqlite3.Connection:
    """Open a workspace for writing, creating or migrating it. Hold the lock of `core.lock` first.

    Args:
        workspace: the folder; made where it is missing.
        timeout: seconds to wait for another process's transaction.

    Raises:
        StoreError: the folder is read-only or full, or the store is corrupt, foreign, newer or locked.
    """
    path = store_path(workspace)
    try:
        workspace.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise StoreError(f"the workspace {workspace} is a file: choose a folder") from error
    except OSError as error:
        raise StoreError(
            f"cannot create the workspace {workspace} ({error.strerror}): make its parent folder writable, "
            "or choose another workspace"
        ) from error
    with naming(path):
        _examine(path)
        connection = sqlite3.connect(path, isolation_level=None, timeout=timeout, check_same_thread=False)
        try:
            if schema.check(connection) == 0:
                connection.execute(f"PRAGMA page_size={PAGE_SIZE}")  # only a file without pages takes it
            _use_wal(connection, timeout)
            connection.execute("PRAGMA synchronous=NORMAL")  # a killed process loses nothing
            connection.execute("PRAGMA cache_size=-65536")
            connection.execute("PRAGMA temp_store=MEMORY")
            connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT}")
            connection.execute(f"PRAGMA journal_size_limit={4 * CHECKPOINT * PAGE_SIZE}")
            schema.migrate(connection)
            # SQLite opens a write-protected file read-only without a word: find out now, not after hours.
            # The transaction alone says nothing; it needs a write, which changes nothing.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(f"PRAGMA user_version={schema.VERSION}")
            connection.execute("ROLLBACK")
        except BaseException:
            connection.close()
            raise
    return connection


def _use_wal(connection: sqlite3.Connection, timeout: float) -> None:
    """Switch to WAL; SQLite does not wait here by itself when another process is doing the same."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def open_reader(workspace: Path) -> sqlite3.Connection:
    """Open an existing workspace read-only.

    Raises:
        StoreError: there is no store, or it is corrupt, foreign or newer.
    """
    path = store_path(workspace)
    try:
        path.stat()
    except FileNotFoundError:
        raise StoreError(
            f"there is no workspace at {workspace} (no {FILE_NAME}): start one with 'windowshift run'"
        ) from None
    except NotADirectoryError:
        raise StoreError(f"the workspace {workspace} is a file: choose a folder") from None
    except OSError:
        pass  # said below
    with naming(path):
        _examine(path)
        connection = _connect_read_only(path)
        try:
            version = schema.check(connection)
            if version == 0:
                raise UnusableError("it is empty; 'windowshift run' or 'plan' fills it")
            if version < schema.VERSION:
                raise UnusableError("it was written by an older windowshift; 'windowshift run' or 'plan' migrates it")
        except BaseException:
            connection.close()
            raise
    return connection


def is_older(workspace: Path) -> bool:
    """Return whether a workspace has a store that must be migrated before it can be read.

    Raises:
        StoreError: it is corrupt, foreign or newer.
    """
    path = store_path(workspace)
    if not path.is_file():
        return False
    with naming(path):
        _examine(path)
        with closing(_connect_read_only(path)) as connection:
            return schema.check(connection) < schema.VERSION


def identity(path: Path) -> tuple[int, int] | None:
    """Return a number pair that changes when the file at `path` is replaced; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _examine(path: Path) -> None:
    """Refuse a file that is no usable store without changing a byte of it.

    A plain SQLite connection would move a left-over log into the file when it closes, so a store that has
    to be left alone is judged by its header and by a connection that cannot write.
    """
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        raise UnusableError("it is a folder; move it away, or choose another workspace") from None
    except OSError as error:
        raise UnusableError(f"it cannot be read ({error.strerror}); make the file and its folder readable") from error
    if not header:
        return
    if len(header) < 100 or not header.startswith(_MAGIC):
        raise UnusableError("it is corrupt (not an SQLite file); restore it from a copy, or move it away and run again")
    log = _log_bytes(path)
    pages = int.from_bytes(header[28:32], "big")
    if not log and header[24:28] == header[92:96]:  # the header's page count is valid and the newest
        page_size = int.from_bytes(header[16:18], "big")
        wanted, found = pages * (65536 if page_size == 1 else page_size), path.stat().st_size
        if found < wanted:
            raise UnusableError(
                f"it is corrupt (cut off after {found:,} of {wanted:,} bytes); restore it from a copy, "
                "or move it away and run again"
            )
    connection = _read_only(path, immutable=not log)
    try:
        schema.check(connection)
    finally:
        connection.close()


def _log_bytes(path: Path) -> int:
    try:
        return path.with_name(path.name + "-wal").stat().st_size
    except OSError:
        return 0


def _connect_read_only(path: Path) -> sqlite3.Connection:
    connection = _read_only(path)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        if _log_bytes(path):
            raise
        # WAL needs a writable folder even to read; a finished store on a read-only disk does not change.
        return _read_only(path, immutable=True)
    return connection


def _read_only(path: Path, *, immutable: bool = False) -> sqlite3.Connection:
    uri = f"{path.resolve().as_uri()}?mode=ro" + ("&immutable=1" if immutable else "")
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5.0, check_same_thread=False)


def storable(text: str) -> str:
    """Return text as UTF-8 can hold it: lone surrogates, as some APIs and file names carry, become U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
    return text


def to_json(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
