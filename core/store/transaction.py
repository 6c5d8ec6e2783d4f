"""Transactions on a store's one write connection."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from windowshift.core.store.connection import open_writer, store_path
from windowshift.core.store.failure import UnusableError, naming


class Transactions:
    """The write connection of one workspace, and what makes a group of writes whole.

    Args:
        workspace: the folder; made where it is missing.
        timeout: seconds that a transaction waits for one of another process.

    Raises:
        StoreError: as `open_writer`.
    """

    def __init__(self, workspace: Path, *, timeout: float = 10.0) -> None:
        self.workspace = workspace
        self.path = store_path(workspace)
        self.connection = open_writer(workspace, timeout=timeout)
        self._turn = threading.RLock()  # a runner's threads share one writer
        self._depth = 0

    def close(self) -> None:
        """Close the store."""
        self.connection.close()

    @contextmanager
    def batch(self) -> Iterator[sqlite3.Connection]:
        """Group writes into one transaction; a nested batch is undone alone when it raises.

        Other threads wait until the outermost batch ends; do not await inside one.

        Raises:
            StoreError: the disk is full, or the store is gone, locked or corrupt; nothing of the batch stays.
        """
        with self._turn, naming(self.path):
            outer = self._depth == 0
            if outer and self.connection.in_transaction:
                self.connection.execute("ROLLBACK")  # left by an interrupt between two statements
            self._depth += 1
            try:
                if outer:
                    # IMMEDIATE: a transaction that first reads and then writes would fail at once beside
                    # another process's writes, in place of waiting for its turn.
                    self.connection.execute("BEGIN IMMEDIATE")
                else:
                    self._require_transaction()
                    self.connection.execute("SAVEPOINT nested")
                try:
                    yield self.connection
                    self._require_transaction()
                    self.connection.execute("COMMIT" if outer else "RELEASE nested")
                except BaseException:
                    if self.connection.in_transaction:
                        for statement in ("ROLLBACK",) if outer else ("ROLLBACK TO nested", "RELEASE nested"):
                            self.connection.execute(statement)
                    self._forget()
                    raise
            finally:
                self._depth -= 1

    def _require_transaction(self) -> None:
        # A full disk makes SQLite undo the whole transaction. Going on would write rows one by one.
        if not self.connection.in_transaction:
            raise UnusableError("an error inside the batch undid all of it; run the same command again")

    def _forget(self) -> None:
        """Drop what was remembered of rows that an undone batch may have written."""
