"""The progress of a headless run: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from windowshift.core.contract import sanitise
from windowshift.core.contract.progress import Progress
from windowshift.say import say

LINE_SECONDS = 10.0
QUIET_SECONDS = 60.0
"""Without news there is a line this often, so that a log shows what a run is at."""


@contextmanager
def progress_bar(name: str, *, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Yield a function that shows a run's progress on stderr."""
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        yield from _bar(name)
    else:
        yield from _lines(name)


def _bar(name: str) -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} cells"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[now]}", markup=False),
    )
    with RichProgress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(sanitise.line(name), total=None, now="")

        def show(progress: Progress) -> None:
            failed = f" ({progress.failed} failed)" if progress.failed else ""
            now = sanitise.line(f"{_running(progress)}{failed}{_queued(progress)}")
            bar.update(task, total=progress.cells, completed=progress.cells_done, now=now)

        yield show


def _lines(name: str) -> Iterator[Callable[[Progress], None]]:
    start = time.monotonic()
    shown = start - LINE_SECONDS
    last: Progress | None = None

    def show(progress: Progress) -> None:
        nonlocal shown, last
        now = time.monotonic()
        ended = progress.jobs_done + progress.failed == progress.jobs
        news = progress != last and (ended or now - shown >= LINE_SECONDS)
        if news or now - shown >= QUIET_SECONDS:
            shown, last = now, progress
            failed = f", {progress.failed} job{'' if progress.failed == 1 else 's'} failed" if progress.failed else ""
            running = f"; {_running(progress)}" if progress.running else ""
            say(
                f"{name}: {progress.cells_done}/{progress.cells} cells, "
                f"{progress.jobs_done}/{progress.jobs} jobs{failed}, {now - start:.0f} s{running}{_queued(progress)}",
                err=True,
            )

    yield show


def _running(progress: Progress) -> str:
    more = f" and {len(progress.running) - 1} more" if len(progress.running) > 1 else ""
    return f"{progress.running[0]}{more}" if progress.running else ""


def _queued(progress: Progress) -> str:
    return "".join(f"; {name}: {queue.words}" for name, queue in progress.queues if queue.words)
