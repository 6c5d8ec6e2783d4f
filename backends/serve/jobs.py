"""Fine-tuning jobs, their events and checkpoints, as they are stored and as the API shows them."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from windowshift.backends.serve.api_error import missing
from windowshift.backends.serve.job_request import JobRequest, OwnSft, Resolved
from windowshift.backends.serve.page import ListPage
from windowshift.backends.serve.state import ServerState, new_id, now

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
UNFINISHED = ("queued", "running")
TRAINING, VALIDATION = "training.jsonl", "validation.jsonl"


@dataclass(frozen=True, slots=True)
class ServedJob:
    """A fine-tuning job; `n` is its place in the queue."""

    n: int
    id: str
    created_at: int
    status: Status
    model: str
    training_file: str
    validation_file: str | None
    suffix: str | None
    seed: int
    hyperparameters: Resolved
    examples: int
    metadata: Mapping[str, str] | None
    finished_at: int | None
    fine_tuned_model: str | None
    trained_tokens: int | None
    error: Mapping[str, str | None] | None
    result_file: str | None
    sft: OwnSft

    @property
    def finished(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.status not in UNFINISHED

    @property
    def steps_an_epoch(self) -> int:
        """Optimizer steps in one pass over the examples."""
        return -(-self.examples // self.hyperparameters.batch_size)

    @property
    def name(self) -> str:
        """The fine-tuned model's name, ``ft:BASE:SUFFIX:ID``, whether it is there yet or not."""
        return f"ft:{self.model}:{self.suffix or ''}:{self.id.removeprefix('ftjob-')[:8]}"

    def checkpoint_name(self, step: int) -> str:
        """The model name of a checkpoint; the last one is the fine-tuned model itself."""
        last = step >= self.steps_an_epoch * self.hyperparameters.n_epochs
        return self.name if last else f"{self.name}:ckpt-step-{step}"

    def to_api(self, estimated_finish: int | None = None) -> dict[str, Any]:
        """As the API's job object."""
        numbers = self.hyperparameters.to_api()
        return {
            "id": self.id,
            "object": "fine_tuning.job",
            "created_at": self.created_at,
            "finished_at": self.finished_at,
            "estimated_finish": estimated_finish,
            "status": self.status,
            "model": self.model,
            "fine_tuned_model": self.fine_tuned_model,
            "organization_id": "org-local",
            "training_file": self.training_file,
            "validation_file": self.validation_file,
            "result_files": [self.result_file] if self.result_file else [],
            "hyperparameters": numbers,
            "method": {"type": "supervised", "supervised": {"hyperparameters": numbers}},
            "seed": self.seed,
            "trained_tokens": self.trained_tokens,
            "error": dict(self.error) if self.error else None,
            "integrations": [],
            "metadata": dict(self.metadata) if self.metadata is not None else None,
            "user_provided_suffix": self.suffix,
            **({"windowshift": self.sft.model_dump(exclude_none=True)} if self.sft != OwnSft() else {}),
        }


class Jobs:
    """The jobs of a data folder."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    def folder(self, job: ServedJob) -> Path:
        """Where a job keeps its copy of the data, its resume state and its adapters."""
        return self._state.place("jobs", job.id)

    def create(
        self, request: JobRequest, resolved: Resolved, examples: int, seed: int, data: Path, unlearned: Path | None
    ) -> ServedJob:
        """Put copies of the training and validation data into a new job's folder, and store the job as queued."""
        job_id = new_id("ftjob-")
        folder = self._state.place("jobs", job_id)
        try:
            folder.mkdir()
            for source, name in ((data, TRAINING), (unlearned, VALIDATION)):
                if source is None:
                    continue
                try:
                    os.link(source, folder / name)
                except OSError:  # a file system without hard links
                    shutil.copyfile(source, folder / name)
            cursor = self._state.connection.execute(
                "INSERT INTO jobs (id, created_at, status, model, training_file, validation_file, suffix, seed, "
                "n_epochs, batch_size, multiplier, examples, metadata, sft) "
                "VALUES (?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    job_id,
                    now(),
                    request.model,
                    request.training_file,
                    request.validation_file,
                    request.suffix,
                    seed,
                    resolved.n_epochs,
                    resolved.batch_size,
                    resolved.multiplier,
                    examples,
                    None if request.metadata is None else json.dumps(request.metadata),
                    None if request.windowshift is None else request.windowshift.model_dump_json(),
                ),
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # nobody knows of it: a full disk keeps none of it
            raise
        row = self._state.connection.execute("SELECT * FROM jobs WHERE n = ?", (cursor.lastrowid,)).fetchone()
        return _job(row)

    def get(self, job_id: str) -> ServedJob:
        """Find a job.

        Raises:
            ApiError: there is none of that id.
        """
        row = self._state.connection.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            raise missing("fine-tuning job", job_id)
        return _job(row)

    def unfinished(self) -> list[ServedJob]:
        """Jobs that are queued, or were running when the server ended; the oldest first."""
        query = "SELECT * FROM jobs WHERE status IN (?, ?) ORDER BY n"
        return [_job(row) for row in self._state.connection.execute(query, UNFINISHED)]

    def sweep(self) -> None:
        """Remove folders that no job names: what a crash left while a job was being created."""
        known = {row["id"] for row in self._state.connection.execute("SELECT id FROM jobs")}
        self._state.sweep("jobs", "ftjob-", known)

    def change(self, job: ServedJob, **columns: object) -> ServedJob:
        """Set columns of a job; its new state."""
        setting = ", ".join(f"{name} = ?" for name in columns)
        self._state.connection.execute(f"UPDATE jobs SET {setting} WHERE n = ?", (*columns.values(), job.n))
        return _job(self._state.connection.execute("SELECT * FROM jobs WHERE n = ?", (job.n,)).fetchone())

    def page(self, page: ListPage, metadata: Mapping[str, str] | Literal["any"] | None) -> tuple[list[ServedJob], bool]:
        """A part of the list; `metadata` None asks for jobs that have none."""
        where: list[tuple[str, list[object]]] = []
        if metadata is None:
            where.append(("metadata IS NULL", []))
        elif metadata != "any":
            has = "EXISTS (SELECT 1 FROM json_each(jobs.metadata) WHERE key = ? AND value = ?)"
            where.extend((has, [key, value]) for key, value in metadata.items())
        rows, more = page.rows(self._state.connection, "jobs", where, what="fine-tuning job")
        return [_job(row) for row in rows], more

    def log(
        self,
        job: ServedJob,
        message: str,
        *,
        level: Literal["info", "warn", "error"] = "info",
        step: int | None = None,
        loss: float | None = None,
        tokens: int | None = None,
    ) -> None:
        """Append an event; a step that a resumed job takes again is there already."""
        self._state.connection.execute(
            "INSERT OR IGNORE INTO events (id, job, created_at, level, message, step, loss, tokens) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (new_id("ftevent-"), job.n, now(), level, message, step, loss, tokens),
        )

    def validated(self, job: ServedJob, step: int, loss: float) -> None:
        """Store the loss on the whole validation file after a step, once."""
        cursor = self._state.connection.execute(
            "UPDATE events SET valid_loss = ? WHERE job = ? AND step = ? AND valid_loss IS NULL", (loss, job.n, step)
        )
        if cursor.rowcount:
            self.log(job, f"Step {step}: full validation loss={loss:.4f}")

    def events(self, job: ServedJob, page: ListPage) -> tuple[list[sqlite3.Row], bool]:
        """A part of a job's events."""
        return page.rows(self._state.connection, "events", [("job = ?", [job.n])], what="event")

    def steps(self, job: ServedJob) -> list[sqlite3.Row]:
        """All steps of a job, with columns `step`, `loss`, `tokens` and `valid_loss`."""
        query = "SELECT step, loss, tokens, valid_loss FROM events WHERE job = ? AND step IS NOT NULL ORDER BY step"
        return self._state.connection.execute(query, (job.n,)).fetchall()

    def last_step(self, job: ServedJob) -> int:
        """The last step of a job that is known; 0 before the first."""
        query = "SELECT coalesce(max(step), 0) FROM events WHERE job = ? AND step IS NOT NULL"
        return int(self._state.connection.execute(query, (job.n,)).fetchone()[0])

    def checkpoint(self, job: ServedJob, step: int, adapter: str) -> bool:
        """Store a checkpoint, and its model under its name; False for one that a resumed job reports anew."""
        connection = self._state.connection
        if connection.execute("SELECT 1 FROM checkpoints WHERE job = ? AND step = ?", (job.n, step)).fetchone():
            return False
        found = connection.execute(
            "SELECT loss, valid_loss FROM events WHERE job = ? AND step <= ? ORDER BY step DESC LIMIT 1", (job.n, step)
        ).fetchone()
        name = job.checkpoint_name(step)
        with self._state.transaction():
            connection.execute(
                "INSERT INTO checkpoints (id, job, created_at, step, model, train_loss, valid_loss) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (new_id("ftckpt_"), job.n, now(), step, name, *(found or (None, None))),
            )
            connection.execute(
                "INSERT INTO models (name, base, adapter, created_at) VALUES (?, ?, ?, ?)",
                (name, job.model, adapter, now()),
            )
        return True

    def checkpoints(self, job: ServedJob, page: ListPage) -> tuple[list[sqlite3.Row], bool]:
        """A part of a job's checkpoints."""
        return page.rows(self._state.connection, "checkpoints", [("job = ?", [job.n])], what="checkpoint")


def _job(row: sqlite3.Row) -> ServedJob:
    error = None
    if row["error_message"] is not None:
        error = {"code": row["error_code"], "message": row["error_message"], "param": row["error_param"]}
    return ServedJob(
        n=row["n"],
        id=row["id"],
        created_at=row["created_at"],
        status=row["status"],
        model=row["model"],
        training_file=row["training_file"],
        validation_file=row["validation_file"],
        suffix=row["suffix"],
        seed=row["seed"],
        hyperparameters=Resolved(row["n_epochs"], row["batch_size"], row["multiplier"]),
        examples=row["examples"],
        metadata=None if row["metadata"] is None else json.loads(row["metadata"]),
        finished_at=row["finished_at"],
        fine_tuned_model=row["fine_tuned_model"],
        trained_tokens=row["trained_tokens"],
        error=error,
        result_file=row["result_file"],
        sft=OwnSft() if row["sft"] is None else OwnSft.model_validate_json(row["sft"]),
    )
