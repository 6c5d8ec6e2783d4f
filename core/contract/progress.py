"""How far a run is, for progress bars."""

from __future__ import annotations

from dataclasses import dataclass

from windowshift.core.contract.service import Queue


@dataclass(frozen=True, slots=True)
class Progress:
    """Cells and jobs done of all, jobs that failed, the labels of what is being worked on, and services' queues."""

    cells_done: int
    cells: int
    jobs_done: int
    jobs: int
    failed: int
    running: tuple[str, ...]
    queues: tuple[tuple[str, Queue], ...] = ()
