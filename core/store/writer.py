"""The one writer of a store: every change that a runner makes."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from windowshift.core.contract.artifacts import checked_id
from windowshift.core.contract.errors import StoreError
from windowshift.core.contract.records import ExperimentState, JobState
from windowshift.core.store.checksums import INSIDE, OF_EXPERIMENTS, seal, unseal
from windowshift.core.store.connection import identity, naming, storable, to_json
from windowshift.core.store.result_writer import ResultWriter

_CELL = "arm, generate, train, evaluate, seed, step, final, job"
_NOT_SHARED = (
    "SELECT job FROM experiment_jobs WHERE experiment = ? AND job NOT IN "
    "(SELECT job FROM experiment_jobs WHERE experiment != ?)"
)


class Writer(ResultWriter):
    """Writes one workspace. Every public method is one transaction, or part of `batch()`."""

    def __init__(self, workspace: Path, *, timeout: float = 10.0) -> None:
        super().__init__(workspace, timeout=timeout)
        self._identity = identity(self.path)

    # -- experiments and jobs -------------------------------------------------------------------

    def put_experiment(self, fields: Mapping[str, Any]) -> int:
        """Insert or update an experiment by name; values are columns of `experiments`. Return its id."""
        columns = {"state": "planned", "created": time.time(), **fields}
        kept = [name for name in columns if name not in ("name", "created", "state")]
        with self.batch() as connection:
            row = connection.execute(
                f"INSERT INTO experiments ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "
                f"ON CONFLICT (name) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in kept)} "
                "RETURNING id",
                tuple(columns.values()),
            ).fetchone()
        return int(row[0])

    def registered(self, name: str, wanted: Iterable[Mapping[str, Any]], what: str) -> list[dict[str, Any]]:
        """What was named before a run, as it is to be stored: each entry with when a run first had it.

        One that was registered before keeps its time and how many cells were done by then. One that is not wanted any
        more is kept as withdrawn, unless no cell was done yet.

        Args:
            name: of the experiment, which may be new.
            wanted: the entries of its spec, each with a `hash`.
            what: where they stand among its conditions: contrasts, selections.
        """
        with self.batch() as connection:
            row = connection.execute("SELECT id, conditions FROM experiments WHERE name = ?", (name,)).fetchone()
            before: list[dict[str, Any]] = json.loads(row[1]).get(what, []) if row else []
            (done,) = connection.execute(
                "SELECT count(*) FROM cells c JOIN jobs j ON j.n = c.job WHERE c.experiment = ? AND j.state = 'done'",
                (row[0] if row else -1,),
            ).fetchone()
        now = time.time()
        known = {str(one["hash"]): one for one in before}
        found = []
        for one in wanted:
            earlier = known.pop(str(one["hash"]), None)
            kept = {key: earlier[key] for key in ("registered", "cells_done")} if earlier else {}
            found.append({**one, "registered": now, "cells_done": done, **kept})
        return [*found, *({**one, "withdrawn": one.get("withdrawn", now)} for one in known.values() if done)]

    def put_jobs(self, experiment: int, jobs: Sequence[tuple[str, str, str, str, str, int]]) -> dict[str, int]:
        """Link jobs (id, kind, label, inputs JSON, parents JSON, total) to an experiment, adding new ones.

        Return each job id's number.
        """
        unique = list({job[0]: job for job in jobs}.values())
        with self.batch() as connection:
            connection.executemany(
                "INSERT INTO jobs (id, kind, label, inputs, parents, state, total) "
                "VALUES (?, ?, ?, ?, ?, 'pending', ?) ON CONFLICT (id) DO NOTHING",
                unique,
            )
            numbers: dict[str, int] = dict(
                connection.execute(
                    "SELECT j.id, j.n FROM json_each(?) wanted CROSS JOIN jobs j ON j.id = wanted.value",
                    (to_json([job[0] for job in unique]),),
                ).fetchall()
            )
            connection.execute("DELETE FROM experiment_jobs WHERE experiment = ?", (experiment,))
            connection.executemany(
                "INSERT INTO experiment_jobs (experiment, position, job) VALUES (?, ?, ?)",
                [(experiment, position, numbers[job[0]]) for position, job in enumerate(unique)],
            )
        return numbers

    def put_grid(
        self,
        experiment: int,
        cells: Iterable[tuple[str, str, str, str, int, int, int, int]],
        sources: Iterable[tuple[str, str, str, int, int, float, str, str, int, int, int, int | None]],
        guards: Iterable[tuple[str, str, str, str, str, int, int, int, int]] = (),
    ) -> None:
        """Replace an experiment's cells, sources and cells of guards; columns as in the tables, without `experiment`.

        An unchanged grid keeps its cells' ids, so that a screen that shows them can stay.
        """
        with self.batch() as connection:
            self._put_cells(connection, experiment, "cells", _CELL, cells)
            self._put_guards(connection, experiment, guards)
            connection.execute("DELETE FROM sources WHERE experiment = ?", (experiment,))
            connection.executemany(
                "INSERT INTO sources (experiment, arm, generate, train, seed, part, fraction, part_generate, "
                "part_train, job, first, last, reference) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                ((experiment, *source) for source in sources),
            )
            for part in OF_EXPERIMENTS:
                seal(connection, experiment, part)

    def _put_guards(self, connection: sqlite3.Connection, experiment: int, cells: Iterable[Sequence[Any]]) -> None:
        self._put_cells(connection, experiment, "guard_cells", f"guard, {_CELL}", cells)

    def _put_cells(
        self, connection: sqlite3.Connection, experiment: int, table: str, columns: str, cells: Iterable[Sequence[Any]]
    ) -> None:
        wanted = [tuple(cell) for cell in cells]
        query = f"SELECT {columns} FROM {table} WHERE experiment = ? ORDER BY id"
        if connection.execute(query, (experiment,)).fetchall() == wanted:
            return
        connection.execute(f"DELETE FROM {table} WHERE experiment = ?", (experiment,))
        values = ", ".join("?" * (columns.count(",") + 2))
        connection.executemany(
            f"INSERT INTO {table} (experiment, {columns}) VALUES ({values})", [(experiment, *cell) for cell in wanted]
        )

    def set_experiment(self, experiment: int, state: ExperimentState, error: str | None = None) -> None:
        """Record an experiment's state, with the time it started or ended."""
        now = time.time()
        error = error and storable(error)
        with self.batch() as connection:
            connection.execute(
                "UPDATE experiments SET state = ?, error = ?, "
                "started = CASE WHEN ? = 'running' THEN coalesce(started, ?) ELSE started END, "
                "ended = CASE WHEN ? IN ('done', 'failed', 'interrupted', 'cancelled') THEN ? ELSE NULL END "
                "WHERE id = ?",
                (state, error, state, now, state, now, experiment),
            )
            self.event("state", {"state": state, "error": error}, experiment=experiment)

    def delete_experiment(self, experiment: int) -> list[str]:
        """Remove an experiment with its cells, and the jobs and completions that no other experiment shares.

        Prompts and phrases stay: others may use them, and they are small.

        Returns:
            The ids of the removed jobs, whose artifacts the caller may delete.

        Raises:
            StoreError: an id is none, so that deleting its artifacts could delete something else; nothing is removed.
        """
        with self.batch() as connection:
            own = connection.execute(
                f"SELECT id, n FROM jobs WHERE n IN ({_NOT_SHARED})", (experiment, experiment)
            ).fetchall()
            for identifier, _ in own:
                checked_id(identifier)
            numbers = [(n,) for _, n in own]
            for table in ("completions", "scores", "summaries", *INSIDE, "events", "control"):
                connection.executemany(f"DELETE FROM {table} WHERE job = ?", numbers)
            connection.executemany(
                "DELETE FROM checksums WHERE owner = ? AND part NOT IN ('grid', 'experiment')", numbers
            )
            unseal(connection, experiment, OF_EXPERIMENTS)
            connection.executemany("DELETE FROM jobs WHERE n = ?", numbers)
            # A shared job keeps its log, the loss curve above all; it only forgets who ran it.
            connection.execute("DELETE FROM events WHERE experiment = ? AND job IS NULL", (experiment,))
            connection.execute("UPDATE events SET experiment = NULL WHERE experiment = ?", (experiment,))
            for table in ("cells", "guard_cells", "sources", "experiment_jobs", "control", "runs"):
                connection.execute(f"DELETE FROM {table} WHERE experiment = ?", (experiment,))
            connection.execute("DELETE FROM experiments WHERE id = ?", (experiment,))
        return [identifier for identifier, _ in own]

    def set_result(self, job: int, result: Mapping[str, Any]) -> None:
        """Store what a job has left behind so far; its state stays."""
        with self.batch() as connection:
            connection.execute("UPDATE jobs SET result = ? WHERE n = ?", (to_json(result), job))
            if connection.execute("SELECT 1 FROM checksums WHERE owner = ? AND part = 'job'", (job,)).fetchone():
                seal(connection, job, "job")

    def set_job(
        self,
        job: int,
        state: JobState,
        *,
        error: str | None = None,
        result: Mapping[str, Any] | None = None,
        usd: float | None = None,
        experiment: int | None = None,
    ) -> None:
        """Record a job's state; `result` and `usd` stay as they were where None is given.

        A job that runs again after it ended, or after it was put back to pending, gets a fresh start time;
        one that goes on after a pause keeps its own.
        """
        now = time.time()
        error = error and storable(error)
        with self.batch() as connection:
            connection.execute(
                "UPDATE jobs SET state = :state, error = :error, result = coalesce(:result, result), "
                "usd = coalesce(:usd, usd), "
                "started = CASE WHEN :state = 'pending' THEN NULL "
                "WHEN :state != 'running' THEN started "
                "WHEN state IN ('running', 'paused') THEN coalesce(started, :now) ELSE :now END, "
                "ended = CASE WHEN :state IN ('done', 'failed', 'cancelled') THEN :now ELSE NULL END, "
                "rate = CASE WHEN :state = 'pending' THEN NULL ELSE rate END, "
                "done = CASE WHEN :state = 'done' THEN total ELSE done END WHERE n = :job",
                {
                    "state": state,
                    "error": error,
                    "result": None if result is None else to_json(result),
                    "usd": usd,
                    "now": now,
                    "job": job,
                },
            )
            if state == "done":
                seal(connection, job, "job")
                if connection.execute("SELECT 1 FROM completions WHERE job = ? LIMIT 1", (job,)).fetchone():
                    seal(connection, job, "completions")
            else:
                unseal(connection, job, ["job", "completions", *INSIDE])
            self.event("state", {"state": state, "error": error}, experiment=experiment, job=job)

    def set_priority(self, job: int, priority: int) -> None:
        """Record when a job's turn comes: higher numbers first; 0 is plan order."""
        with self.batch() as connection:
            connection.execute("UPDATE jobs SET priority = ? WHERE n = ?", (priority, job))

    def add_cost(self, job: int, usd: float, *, experiment: int) -> None:
        """Add to what a job has cost, and to what an experiment's runs have paid."""
        with self.batch() as connection:
            connection.execute("UPDATE jobs SET usd = coalesce(usd, 0) + ? WHERE n = ?", (usd, job))
            if usd:
                self.event("cost", {"usd": usd}, experiment=experiment, job=job)

    def progress(self, job: int, done: int, *, loss: float | None = None, rate: float | None = None) -> None:
        """Record how far a job is: `done` rows or examples, the loss, the rate per second."""
        with self.batch() as connection:
            connection.execute(
                "UPDATE jobs SET done = ?, loss = coalesce(?, loss), rate = coalesce(?, rate) WHERE n = ?",
                (done, loss, rate, job),
            )

    def set_total(self, job: int, total: int) -> None:
        """A job turned out to have so many rows."""
        with self.batch() as connection:
            connection.execute("UPDATE jobs SET total = ? WHERE n = ?", (total, job))

    def event(
        self, kind: str, data: Mapping[str, Any], *, experiment: int | None = None, job: int | None = None
    ) -> None:
        """Append to the event log."""
        with self.batch() as connection:
            connection.execute(
                "INSERT INTO events (at, experiment, job, kind, data) VALUES (?, ?, ?, ?, ?)",
                (time.time(), experiment, job, kind, storable(to_json(data))),
            )

    # -- the runner itself ----------------------------------------------------------------------

    def start_run(self, experiment: int) -> int:
        """Record that this process runs an experiment; return the run's id."""
        now = time.time()
        with self.batch() as connection:
            cursor = connection.execute(
                "INSERT INTO runs (experiment, pid, host, started, heartbeat) VALUES (?, ?, ?, ?, ?)",
                (experiment, os.getpid(), socket.gethostname(), now, now),
            )
        return int(cursor.lastrowid or 0)

    def heartbeat(self, run: int) -> None:
        """Say that the run is alive.

        Raises:
            StoreError: also where the file was moved or deleted: SQLite would write on into nowhere.
        """
        if identity(self.path) != self._identity:
            raise StoreError(
                f"the store {self.path} was moved, replaced or deleted while a run was writing it: "
                "put it back, then run the same command again"
            )
        with self.batch() as connection:
            connection.execute("UPDATE runs SET heartbeat = ? WHERE id = ?", (time.time(), run))

    def end_run(self, run: int) -> None:
        """Record that the run ended by itself."""
        with self.batch() as connection:
            connection.execute("UPDATE runs SET ended = ? WHERE id = ?", (time.time(), run))

    def take_controls(self, experiment: int) -> list[tuple[str, int | None]]:
        """Return (action, job) of the controls not handled yet, oldest first, and mark them handled."""
        query = "SELECT id, action, job FROM control WHERE experiment = ? AND handled IS NULL ORDER BY id"
        with self._turn, naming(self.path):
            rows = self.connection.execute(query, (experiment,)).fetchall()
        if rows:
            with self.batch() as connection:
                connection.executemany(
                    "UPDATE control SET handled = ? WHERE id = ?", [(time.time(), row[0]) for row in rows]
                )
        return [(row[1], row[2]) for row in rows]
