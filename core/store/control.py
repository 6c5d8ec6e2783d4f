"""Control of a run from outside: a table that the runner polls."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from windowshift.core.contract.records import ControlAction, ExperimentRow, JobRow, JobState, RunRow
from windowshift.core.store.connection import naming, open_reader, store_path
from windowshift.core.store.liveness import live_state, working

ACTIONS: tuple[ControlAction, ...] = ("pause", "resume", "cancel", "retry", "first", "last")
ASKED: dict[ControlAction, str] = {
    "pause": "pause",
    "resume": "resume",
    "cancel": "cancel",
    "retry": "retry",
    "first": "do this job first",
    "last": "do this job last",
}
"""What a run is asked for, in words."""
_TO_DO: dict[ControlAction, str] = {"first": "put first", "last": "put last"}
_OF: dict[ControlAction, tuple[JobState, ...]] = {
    "pause": ("pending", "running"),
    "resume": ("paused",),
    "cancel": ("pending", "running", "paused"),
    "retry": ("failed", "cancelled"),
    "first": ("pending", "running", "paused"),
    "last": ("pending", "running", "paused"),
}
"""The states of a job in which an action changes anything."""
_BECOMES: dict[str, JobState] = {"pause": "paused", "resume": "pending", "cancel": "cancelled", "retry": "pending"}
_AGAIN: dict[str, str] = {
    "done": "is done, and nothing of it is left to do",
    "planned": "is planned, and 'windowshift run' starts it",
    "failed": "has ended, and the same 'windowshift run' again tries its failed jobs again",
    "cancelled": "was cancelled, and the same 'windowshift run' again takes it up",
    "interrupted": "was interrupted, and the same 'windowshift run' again goes on with it",
}

Asked = Sequence[tuple[str, int | None]]
"""(action, job) of what a run was asked before and has not taken up yet, oldest first."""


def refusal(
    action: ControlAction,
    experiment: ExperimentRow,
    run: RunRow | None,
    job: JobRow | None = None,
    *,
    asked: Asked = (),
    unscored: bool = False,
    now: float | None = None,
) -> str | None:
    """Why an action would change nothing: one sentence, without a full stop; None where it does.

    Args:
        action: what somebody wants.
        experiment: the experiment.
        run: its newest run.
        job: one of its jobs; None: the experiment as a whole.
        asked: what its run has not taken up yet.
        unscored: whether some done job (or this one) has completions that its scorer failed on, which a retry scores.
        now: Unix seconds; None: the clock's.
    """
    if not working(run, now):
        state = live_state(experiment, run, now)
        word = _AGAIN.get(state, f"is {state}")
        return f"no run is alive to {ASKED[action]}: '{experiment.name}' {word}"
    if job is not None:
        own = [_BECOMES[each] for each, number in asked if number == job.n and each in _BECOMES]
        found = own[-1] if own else job.state
        if found in _OF[action] or (action == "retry" and unscored and found == "done"):
            return None
        return f"there is nothing to {_TO_DO.get(action, action)}: job {job.n} ({job.label}) is {found}"
    whole = [each for each, number in asked if number is None]
    switched = [each for each in whole if each in ("pause", "resume")]
    paused = switched[-1] == "pause" if switched else experiment.state == "paused"
    if "cancel" in whole:
        return f"'{experiment.name}' was asked to cancel already, and ends in a moment"
    if action == "pause" and paused:
        return f"'{experiment.name}' is paused already: 'resume' lets it go on"
    if action == "resume" and not paused:
        one = ", but for jobs that are: name one with --job" if experiment.jobs.get("paused") else ""
        return f"there is nothing to resume: '{experiment.name}' is not paused{one}"
    if action == "retry" and not unscored and not any(experiment.jobs.get(each) for each in _OF["retry"]):
        return f"there is nothing to retry: no job of '{experiment.name}' has failed or was cancelled"
    return None


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
