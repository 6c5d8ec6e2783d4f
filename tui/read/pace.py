"""How long a run still takes and what it will cost, from what its jobs took so far."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from windowshift.core.contract.records import JobRow


@dataclass(frozen=True, slots=True)
class TimeLeft:
    """What is left of a run; None where nothing like it has been done yet.

    `seconds` counts computing time; `usd` is the whole run's expected cost, what is spent included, and
    None also where no job has a price.
    """

    seconds: float | None
    usd: float | None


def pace(jobs: Sequence[JobRow], now: float) -> TimeLeft:
    """Extrapolate: a row that is left takes as long, and costs as much, as the rows of its kind that are done.

    Jobs run beside each other, so times per kind are shares of the work, and the work done so far took
    the time in which any job ran.
    """
    work_done = work_left = usd = 0.0
    timed = priced = True
    for kind in dict.fromkeys(job.kind for job in jobs if job.kind != "score"):
        own = [job for job in jobs if job.kind == kind]
        spans = [span for job in own if (span := _span(job, now))]
        done = sum(job.done for job in own if job.started is not None)
        left = sum(job.total - job.done for job in own if job.state in ("pending", "running", "paused"))
        busy = _union(spans)
        if done and busy:
            work_done += busy
            work_left += left * busy / done
        elif left:
            timed = False
        spent = [job for job in own if job.usd is not None]
        rows = sum(job.done for job in spent)
        usd += sum(job.usd or 0.0 for job in spent)
        unpaid = sum(job.total for job in own if job.usd is None and job.state not in ("done", "cancelled", "failed"))
        if rows:
            usd += unpaid * sum(job.usd or 0.0 for job in spent) / rows
        elif unpaid:
            priced = False
    everything = _union([span for job in jobs if (span := _span(job, now))])
    seconds = everything * work_left / work_done if timed and work_done else None
    known = priced and any(job.usd is not None for job in jobs)
    return TimeLeft(seconds if work_left or not timed else None, usd if known else None)


def _span(job: JobRow, now: float) -> tuple[float, float] | None:
    if job.kind == "score" or job.started is None:
        return None
    if job.ended is None and job.state != "running":
        return None
    return job.started, now if job.ended is None else job.ended


def _union(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        if end > reached:
            total += end - max(start, reached)
            reached = end
    return total
