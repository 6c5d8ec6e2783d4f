"""Batches: files of requests for text that are answered when there is time, as they are stored and shown."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from windowshift.backends.serve.api_error import missing
from windowshift.backends.serve.job_request import Metadata, Text
from windowshift.backends.serve.page import ListPage
from windowshift.backends.serve.state import ServerState, new_id, now

Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/responses"]
DAY = 24 * 60 * 60
INPUT = "input.jsonl"
_MOMENTS = {
    "in_progress": "in_progress_at",
    "finalizing": "finalizing_at",
    "completed": "completed_at",
    "failed": "failed_at",
    "cancelling": "cancelling_at",
    "cancelled": "cancelled_at",
}

Status = Literal["validating", "in_progress", "finalizing", "completed", "failed", "cancelling", "cancelled"]
UNFINISHED = ("validating", "in_progress", "finalizing", "cancelling")


class BatchRequest(BaseModel):
    """The body of ``POST /v1/batches``."""

    model_config = ConfigDict(extra="forbid")

    input_file_id: Text
    endpoint: Endpoint
    completion_window: Literal["24h"]
    metadata: Metadata | None = None


class BatchLine(BaseModel):
    """A line of a batch's input: a request, under a name that comes back with its answer."""

    model_config = ConfigDict(extra="forbid")

    custom_id: Text = Field(max_length=512)
    method: Literal["POST"]
    url: Endpoint
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BatchProblem:
    """What is wrong with a batch's input, and in which line."""

    line: int | None
    message: str

    def to_api(self) -> dict[str, Any]:
        """As the API's batch error object."""
        return {"code": "invalid_request", "line": self.line, "message": self.message, "param": None}


@dataclass(frozen=True, slots=True)
class ServedBatch:
    """A batch. `moments` are Unix seconds by the API's field names."""

    n: int
    id: str
    created_at: int
    status: Status
    endpoint: Endpoint
    input_file: str
    metadata: Mapping[str, str] | None
    moments: Mapping[str, int]
    problems: Sequence[Mapping[str, Any]]
    total: int
    completed: int
    failed: int
    output_file: str | None
    error_file: str | None

    def to_api(self) -> dict[str, Any]:
        """As the API's batch object."""
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "errors": {"object": "list", "data": list(self.problems)} if self.problems else None,
            "input_file_id": self.input_file,
            "completion_window": "24h",
            "status": self.status,
            "output_file_id": self.output_file,
            "error_file_id": self.error_file,
            "created_at": self.created_at,
            "expires_at": self.created_at + DAY,
            "expired_at": None,
            **{name: self.moments.get(name) for name in _MOMENTS.values()},
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "metadata": dict(self.metadata) if self.metadata is not None else None,
        }


class Batches:
    """The batches of a data folder. One is never given up for its age: `expires_at` is only shown."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    def folder(self, batch: ServedBatch) -> Path:
        """Where a batch keeps a copy of its input, and its answers while they come in."""
        return self._state.place("batches", batch.id)

    def create(self, request: BatchRequest, data: Path) -> ServedBatch:
        """Put a copy of the input into a new batch's folder, and store the batch."""
        batch_id = new_id("batch_")
        folder = self._state.place("batches", batch_id)
        try:
            folder.mkdir()
            shutil.copyfile(data, folder / INPUT)
            metadata = None if request.metadata is None else json.dumps(request.metadata)
            self._state.connection.execute(
                "INSERT INTO batches (id, created_at, status, endpoint, input_file, metadata) "
                "VALUES (?, ?, 'validating', ?, ?, ?)",
                (batch_id, now(), request.endpoint, request.input_file_id, metadata),
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # nobody knows of it: a full disk keeps none of it
            raise
        return self.get(batch_id)

    def get(self, batch_id: str) -> ServedBatch:
        """Find a batch.

        Raises:
            ApiError: there is none of that id.
        """
        row = self._state.connection.execute("SELECT * FROM batches WHERE id = ?", (batch_id,)).fetchone()
        if row is None:
            raise missing("batch", batch_id)
        return _batch(row)

    def unfinished(self) -> list[ServedBatch]:
        """Batches with work left, the oldest first."""
        places = ", ".join("?" for _ in UNFINISHED)
        query = f"SELECT * FROM batches WHERE status IN ({places}) ORDER BY n"
        return [_batch(row) for row in self._state.connection.execute(query, UNFINISHED)]

    def enter(self, batch: ServedBatch, status: Status, **columns: object) -> ServedBatch:
        """Give a batch a status, at this moment, and other columns."""
        moments = dict(batch.moments)
        if status in _MOMENTS:
            moments.setdefault(_MOMENTS[status], now())
        return self.change(batch, status=status, moments=json.dumps(moments), **columns)

    def change(self, batch: ServedBatch, **columns: object) -> ServedBatch:
        """Set columns of a batch; its new state."""
        setting = ", ".join(f"{name} = ?" for name in columns)
        self._state.connection.execute(f"UPDATE batches SET {setting} WHERE n = ?", (*columns.values(), batch.n))
        return self.get(batch.id)

    def page(self, page: ListPage) -> tuple[list[ServedBatch], bool]:
        """A part of the list, and whether there is more."""
        rows, more = page.rows(self._state.connection, "batches", what="batch")
        return [_batch(row) for row in rows], more

    def sweep(self) -> None:
        """Remove folders that no batch names, and those of batches that have ended."""
        known = {batch.id for batch in self.unfinished()}
        self._state.sweep("batches", "batch_", known)


def _batch(row: sqlite3.Row) -> ServedBatch:
    return ServedBatch(
        n=row["n"],
        id=row["id"],
        created_at=row["created_at"],
        status=row["status"],
        endpoint=row["endpoint"],
        input_file=row["input_file"],
        metadata=None if row["metadata"] is None else json.loads(row["metadata"]),
        moments=json.loads(row["moments"]),
        problems=json.loads(row["problems"]),
        total=row["total"],
        completed=row["completed"],
        failed=row["failed"],
        output_file=row["output_file"],
        error_file=row["error_file"],
    )
