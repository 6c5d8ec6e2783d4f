"""Whether a run that the store calls running is still alive."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from windowshift.core.contract.records import ExperimentRow, ExperimentState, RunRow

STALE_SECONDS = 5.0
"""A runner says that it is alive every second; silence for this long means it is gone."""


def live_state(experiment: ExperimentRow, run: RunRow | None, now: float | None = None) -> ExperimentState:
    """An experiment's state, with `interrupted` for a run whose process is gone."""
    if experiment.state not in ("running", "paused"):
        return experiment.state
    if run is None or run.ended is not None:
        return "interrupted"
    if run.host == socket.gethostname() and not _exists(run.pid):
        return "interrupted"
    if (time.time() if now is None else now) - run.heartbeat > STALE_SECONDS:
        return "interrupted"
    return experiment.state


def working(run: RunRow | None, now: float | None = None) -> bool:
    """Whether a runner may still take up what it is asked: a silent one too, as long as its process is there."""
    if run is None or run.ended is not None:
        return False
    if run.host == socket.gethostname():
        return _exists(run.pid)
    return (time.time() if now is None else now) - run.heartbeat <= STALE_SECONDS


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _ended(pid)


def _ended(pid: int) -> bool:
    """Tell whether a process has ended and only waits for its parent to notice, which screens never do."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state in ("Z", "X")
