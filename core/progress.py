"""How far a run is, for progress bars."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Cells and jobs done of all, jobs that failed, and the labels of what is being worked on."""

    cells_done: int
    cells: int
    jobs_done: int
    jobs: int
    failed: int
    running: tuple[str, ...]
