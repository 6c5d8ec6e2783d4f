"""Control of a run from outside: a table that the runner polls."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from windowshift.core.contract.records import ControlAction
from windowshift.core.store.connection import naming, open_reader, store_path


def request(workspace: Path, experiment: int, action: ControlAction, job: int | None = None) -> None:
    """Ask the runner of an experiment to pause, resume, cancel or retry it, or one job of it.

    `first` and `last` take a job: it goes before, or after, all that waits.

    Needs no lock: one short transaction beside the runner's.

    Raises:
        StoreError: there is no store, or it cannot be written, or it is locked for ten seconds.
    """
    open_reader(workspace).close()  # says clearly when there is none, or when it is another version's
    path = store_path(workspace)
    with naming(path):
        # mode=rw: a store that was removed meanwhile must not come back as an empty file.
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=10.0)
        try:
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(
                "INSERT INTO control (at, experiment, job, action) VALUES (?, ?, ?, ?)",
                (time.time(), experiment, job, action),
            )
        finally:
            connection.close()
