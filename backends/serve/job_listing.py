"""Lists about fine-tuning jobs, as the API shows them: which jobs are asked for, events, checkpoints."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, Literal

from starlette.datastructures import QueryParams

from windowshift.backends.serve.jobs import ServedJob


def metadata_filter(query: QueryParams) -> Mapping[str, str] | Literal["any"] | None:
    """The filter ``metadata[key]=value``, or ``metadata=null`` for jobs without any."""
    if query.get("metadata") == "null":
        return None
    found = {
        name[len("metadata[") : -1]: value
        for name, value in query.items()
        if name.startswith("metadata[") and name.endswith("]")
    }
    return found or "any"


def event_to_api(row: sqlite3.Row) -> dict[str, Any]:
    """As the API's event object: a message, or a step's metrics."""
    data = {} if row["step"] is None else {"step": row["step"], "train_loss": row["loss"]}
    if row["valid_loss"] is not None:
        data["full_valid_loss"] = row["valid_loss"]
    return {
        "id": row["id"],
        "object": "fine_tuning.job.event",
        "created_at": row["created_at"],
        "level": row["level"],
        "message": row["message"],
        "data": data,
        "type": "message" if row["step"] is None else "metrics",
    }


def checkpoint_to_api(job: ServedJob, row: sqlite3.Row) -> dict[str, Any]:
    """As the API's checkpoint object."""
    metrics = {"step": row["step"], "train_loss": row["train_loss"], "full_valid_loss": row["valid_loss"]}
    return {
        "id": row["id"],
        "object": "fine_tuning.job.checkpoint",
        "created_at": row["created_at"],
        "fine_tuning_job_id": job.id,
        "fine_tuned_model_checkpoint": row["model"],
        "step_number": row["step"],
        "metrics": {name: value for name, value in metrics.items() if value is not None},
    }
