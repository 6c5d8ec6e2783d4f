"""Queries on a store: the read-only connection, and several queries that see one state."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from windowshift.core.contract.errors import StoreError
from windowshift.core.store.connection import naming, open_reader, store_path


class Queries:
    """A connection to one workspace that never writes; cheap to open, safe beside a running writer.

    Args:
        workspace: the folder.
        connection: an open connection to share (the runner's own), in place of a new read-only one.

    Raises:
        StoreError: there is no store in the folder, or it is corrupt, foreign or newer.
    """

    def __init__(self, workspace: str | Path, connection: sqlite3.Connection | None = None) -> None:
        self.workspace = Path(workspace)
        self.path = store_path(self.workspace)
        self._owned = connection is None
        self.connection = open_reader(self.workspace) if connection is None else connection

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.workspace)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, unless it is shared."""
        if self._owned:
            self.connection.close()

    def _all(self, query: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with naming(self.path):
            return self.connection.execute(query, parameters).fetchall()

    def _one(self, query: str, number: int, what: str) -> tuple[Any, ...]:
        rows = self._all(query, (number,))
        if not rows:
            raise StoreError(f"the store {self.path} has no {what} {number}: it was deleted; go back and look again")
        return rows[0]

    def _json(self, text: str, what: str) -> Any:
        """What stands in a column of JSON.

        Raises:
            StoreError: it is none, so that the store was changed by another hand than ours.
        """
        try:
            return json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise StoreError(
                f"the store {self.path} is damaged: {what} cannot be read; 'windowshift doctor -w {self.workspace}' "
                "says what else is, and a copy of it, or running the spec again, mends it"
            ) from error

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let several queries see one state of the store; keep it short, the log grows meanwhile."""
        if self.connection.in_transaction or not self._owned:  # the one writer sees its own state
            yield
            return
        with naming(self.path):
            self.connection.execute("BEGIN")
            try:
                yield
            finally:
                self.connection.execute("ROLLBACK")
