"""The server's state: one SQLite file in its data folder, and files beside it."""

from __future__ import annotations

import re
import secrets
import shutil
import sqlite3
import string
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

from windowshift.core.contract.errors import StoreError
from windowshift.core.contract.whole_file import within

VERSION = 3
_ALPHABET = string.ascii_letters + string.digits
_SCHEMA = """
CREATE TABLE files (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  filename TEXT NOT NULL,
  purpose TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;
CREATE TABLE jobs (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  created_at INTEGER NOT NULL,
  status TEXT NOT NULL,
  model TEXT NOT NULL,
  training_file TEXT NOT NULL,
  validation_file TEXT,
  suffix TEXT,
  seed INTEGER NOT NULL,
  n_epochs INTEGER NOT NULL,
  batch_size INTEGER NOT NULL,
  multiplier REAL NOT NULL,
  examples INTEGER NOT NULL,
  metadata TEXT,
  finished_at INTEGER,
  fine_tuned_model TEXT,
  trained_tokens INTEGER,
  error_code TEXT,
  error_message TEXT,
  error_param TEXT,
  result_file TEXT,
  sft TEXT
) STRICT;
CREATE INDEX jobs_status ON jobs (status);
CREATE TABLE events (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  job INTEGER NOT NULL REFERENCES jobs (n),
  created_at INTEGER NOT NULL,
  level TEXT NOT NULL,
  message TEXT NOT NULL,
  step INTEGER,
  loss REAL,
  tokens INTEGER,
  valid_loss REAL,
  UNIQUE (job, step)
) STRICT;
CREATE TABLE checkpoints (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  job INTEGER NOT NULL REFERENCES jobs (n),
  created_at INTEGER NOT NULL,
  step INTEGER NOT NULL,
  model TEXT NOT NULL,
  train_loss REAL,
  valid_loss REAL,
  UNIQUE (job, step)
) STRICT;
CREATE TABLE batches (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  created_at INTEGER NOT NULL,
  status TEXT NOT NULL,
  endpoint TEXT NOT NULL DEFAULT '/v1/chat/completions',
  input_file TEXT NOT NULL,
  metadata TEXT,
  moments TEXT NOT NULL DEFAULT '{}',
  problems TEXT NOT NULL DEFAULT '[]',
  total INTEGER NOT NULL DEFAULT 0,
  completed INTEGER NOT NULL DEFAULT 0,
  failed INTEGER NOT NULL DEFAULT 0,
  output_file TEXT,
  error_file TEXT
) STRICT;
CREATE TABLE models (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,
  base TEXT NOT NULL,
  adapter TEXT NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;
"""
_SINCE_1 = """
ALTER TABLE jobs ADD COLUMN sft TEXT;
ALTER TABLE events ADD COLUMN valid_loss REAL;
ALTER TABLE checkpoints ADD COLUMN valid_loss REAL;
"""
_SINCE_2 = """
ALTER TABLE batches ADD COLUMN endpoint TEXT NOT NULL DEFAULT '/v1/chat/completions';
"""


class ServerState:
    """An open data folder. Hold the lock of `core.lock` first; use it from one thread.

    Raises:
        StoreError: the folder cannot be used, or its file is of another version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # what clients send is nobody else's
            for name in ("files", "jobs", "batches"):
                self.place(name).mkdir(exist_ok=True)
            self.connection = sqlite3.connect(folder / "serve.db", isolation_level=None)
            self.connection.row_factory = sqlite3.Row
            self.connection.execute("PRAGMA journal_mode = WAL")
            self.connection.execute("PRAGMA synchronous = NORMAL")  # kill -9 loses nothing; an event costs no fsync
            self.connection.execute("PRAGMA foreign_keys = ON")
            found = int(self.connection.execute("PRAGMA user_version").fetchone()[0])
            if found == 0:
                self.connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
            elif found in (1, 2):
                since = _SINCE_2 if found == 2 else _SINCE_1 + _SINCE_2
                self.connection.executescript(f"BEGIN; {since} PRAGMA user_version = {VERSION}; COMMIT;")
            elif found != VERSION:
                raise StoreError(
                    f"{folder / 'serve.db'} is of version {found}, and this windowshift reads version {VERSION}: "
                    "choose another --data folder"
                )
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise StoreError(f"the data folder {folder} cannot be used ({reason}): choose another --data") from error

    def place(self, *parts: str) -> Path:
        """A path below the folder, made of what the database says.

        Raises:
            StoreError: it leads elsewhere: the database, or the folder, was changed by something else.
        """
        return within(self.folder, *parts)

    def sweep(self, name: str, prefix: str, known: Collection[str]) -> None:
        """Remove from a folder of this one what is called as this server calls things, and that nobody knows.

        Other things are a person's, whose folder this may have been before.
        """
        for path in self.place(name).iterdir():
            ours = re.fullmatch(rf"\.?{prefix}[A-Za-z0-9-]+(?:\.partial)?", path.name)
            if not ours or path.name in known:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    @property
    def day(self) -> str:
        """The date that chat templates are told, the day of the folder's first start.

        One for all jobs and chats of the folder: a fine-tune is asked as it was trained, whenever that was.
        """
        path = self.folder / "template_date"
        if not path.is_file():
            partial = path.with_suffix(".partial")
            partial.write_text(datetime.now(UTC).date().isoformat() + "\n", encoding="utf-8")
            partial.replace(path)
        try:
            return date.fromisoformat(path.read_text(encoding="utf-8").strip()).isoformat()
        except ValueError as error:
            raise StoreError(f"{path} holds no date: write one into it, such as 2026-11-26, or delete it") from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the block's changes, or none."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self.connection.close()


def new_id(prefix: str, length: int = 24) -> str:
    """A random name, such as ``file-`` and 24 letters and digits."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(length))


def now() -> int:
    """Unix seconds."""
    return int(time.time())
