"""Piloting: which jobs of a run stop after their first rows, for now."""

from __future__ import annotations

from collections.abc import Mapping

from windowshift.core.plan.jobs import Job


class Piloting:
    """Jobs that wait again, unfinished, once the first `rows` of them are there; without any, every job ends as usual.

    Args:
        rows: how many, by job id; a score job's are those of the completions that it scores.
    """

    def __init__(self, rows: Mapping[str, int] | None = None) -> None:
        self._rows = rows or {}
        self.ended: set[str] = set()

    def limit(self, job: Job) -> int | None:
        """The number of rows after which a job stops; None: it goes on to its end."""
        return self._rows.get(job.id)

    def end(self, job: Job) -> bool:
        """A job has all rows that it was given; whether it stops here, and is not done."""
        if job.id not in self._rows:
            return False
        self.ended.add(job.id)
        return True
