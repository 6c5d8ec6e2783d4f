"""Frozen snapshots of an experiment's jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from windowshift.core.contract.records import Event, JobRow, JobState
from windowshift.core.store.reader import Reader
from windowshift.tui.read.snapshot import CellKey, ExperimentView, behaviour_of, read_experiment

if TYPE_CHECKING:
    from windowshift.core.measure.watched import WatchedCourse

Losses = tuple[tuple[int, float], ...]
"""(examples seen, loss) of a training job."""

LOG_LINES = 200

_FOLDS: dict[JobState, str] = {"done": "all done", "pending": "each waits for its completions"}


@dataclass(frozen=True, slots=True)
class JobsSnapshot:
    """An experiment's jobs in plan order, and the loss curves that were asked for.

    `cells` has the cell that a job fills, and the behaviour by which it is shown: the primary one, or a guard's.
    `device` is what the job whose log is shown made of an accelerator, by its last report; empty where it has none.
    `watched` is how likely the texts are that it watches.
    """

    experiment: ExperimentView
    jobs: tuple[JobRow, ...]
    losses: dict[int, Losses]
    log: tuple[Event, ...]
    log_of: int | None
    cells: dict[int, tuple[CellKey, str]]
    device: str = ""
    watched: tuple[WatchedCourse, ...] = ()


def read_jobs(
    reader: Reader, name: str, known: dict[int, Losses], wanted: frozenset[int], selected: int | None
) -> JobsSnapshot | None:
    """Return an experiment's jobs.

    Args:
        reader: of the store.
        name: of the experiment.
        known: curves that need not be read again, because their jobs ended.
        wanted: numbers of the training jobs that are on screen.
        selected: the job whose log is shown.
    """
    view = read_experiment(reader, name)
    if view is None:
        return None
    jobs = tuple(reader.jobs(view.row.id))
    chosen = selected if selected is not None else (jobs[0].n if jobs else None)
    losses = dict(known)
    for job in jobs:
        if job.kind == "train" and job.n not in known and (job.n in wanted or job.n == chosen):
            losses[job.n] = read_losses(reader, job.n)
    events = tuple(reader.job_events(chosen)) if chosen is not None else ()
    log = tuple(event for event in events if event.kind != "loss")
    first = {one.guard: one.name for one in reversed(view.row.behaviours)} | {"": behaviour_of(view.row, None).name}
    cells = {
        cell.job: (CellKey(cell.arm, cell.generate, cell.train, cell.evaluate, cell.seed, cell.step), behaviour)
        for behaviour in first.values()
        for cell in reversed(reader.cells(view.row.id, behaviour))
    }
    watched = next((read_watched(reader, job) for job in jobs if job.n == chosen), ())
    return JobsSnapshot(view, jobs, losses, log[-LOG_LINES:], chosen, cells, device_words(events), watched)


def read_watched(reader: Reader, job: JobRow) -> tuple[WatchedCourse, ...]:
    """Return how likely the texts are that a training watches; nothing where it watches none."""
    if job.kind != "train" or "watched" not in job.inputs:
        return ()
    from windowshift.core.measure.watched import courses_of

    texts = [prompt for _, prompt in reader.prompt_set(job.inputs["watched"]["set"])]
    return tuple(courses_of([reader.watched(job.n)], [job], ("prefix", "", job.label), texts))


def device_words(events: Sequence[Event]) -> str:
    """Return what the last report of a loss says of the accelerator: MFU, and memory at its peak."""
    for event in reversed(events):
        memory = event.data.get("memory") if event.kind == "loss" else None
        if isinstance(memory, int | float):
            mfu = event.data.get("mfu")
            used = f"MFU {100 * mfu:.0f} %" if isinstance(mfu, int | float) else "MFU unknown here"
            return f"{used} · {memory / 2**30:.1f} GiB of GPU memory"
    return ""


def read_losses(reader: Reader, job: int) -> Losses:
    """Return a training job's loss curve."""
    points: list[tuple[int, float]] = []
    for event in reader.job_events(job, "loss"):
        loss = event.data.get("loss")
        if isinstance(loss, int | float):
            points.append((int(event.data.get("examples", len(points))), float(loss)))
    return tuple(points)


def folded(jobs: Sequence[JobRow]) -> list[JobRow]:
    """Return the jobs with score jobs that are done, and those that wait, as one line each at the end.

    Such a line has a number of 0 or less; jobs of the store count from 1.
    """
    shown, lines = list(jobs), []
    for number, (state, words) in enumerate(_FOLDS.items()):
        inside = [job for job in jobs if job.kind == "score" and job.state == state]
        if len(inside) < 2:
            continue
        shown = [job for job in shown if job.kind != "score" or job.state != state]
        lines.append(
            JobRow(
                n=-number,
                id="",
                kind="score",
                label=f"{len(inside)} score jobs, {words} (f unfolds)",
                state=state,
                done=sum(job.done for job in inside),
                total=sum(job.total for job in inside),
                loss=None,
                rate=None,
                usd=None,
                error=None,
                started=None,
                ended=None,
            )
        )
    return [*shown, *lines]


def remaining(job: JobRow, now: float) -> float | None:
    """Return the seconds a running job still takes at the pace it had so far."""
    if job.state != "running" or job.started is None or not job.done or not job.total:
        return None
    return max(0.0, now - job.started) * (job.total - job.done) / job.done
