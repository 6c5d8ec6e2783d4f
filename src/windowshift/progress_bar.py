"""The progress of a headless run: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from windowshift.core.contract import sanitise
from windowshift.core.contract.progress import Pace, Progress
from windowshift.say import say

LINE_SECONDS = 10.0
"""There is a line this often, with or without news, so that a log shows that a run goes on, and with what."""


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
        pace = Pace()
        task = bar.add_task(sanitise.line(name), total=None, now="")

        def show(progress: Progress) -> None:
            failed = f" ({progress.failed} failed)" if progress.failed else ""
            pace.see(progress.work, time.monotonic())
            work = f"{_work(progress, pace)}{_left(pace)}".removeprefix(", ")
            now = sanitise.line(f"{work}  {_running(progress)}{failed}{_queued(progress)}".strip())
            bar.update(task, total=progress.cells, completed=progress.cells_done, now=now)

        yield show


def _lines(name: str) -> Iterator[Callable[[Progress], None]]:
    start = time.monotonic()
    shown = start - LINE_SECONDS
    last: Progress | None = None
    pace = Pace()

    def show(progress: Progress) -> None:
        nonlocal shown, last
        now = time.monotonic()
        pace.see(progress.work, now)
        ended = progress.jobs_done + progress.failed == progress.jobs and progress != last
        if ended or now - shown >= LINE_SECONDS:
            shown, last = now, progress
            failed = f", {progress.failed} job{'' if progress.failed == 1 else 's'} failed" if progress.failed else ""
            running = f"; {_running(progress)}" if progress.running else ""
            say(
                f"{name}: {progress.cells_done}/{progress.cells} cells, "
                f"{progress.jobs_done}/{progress.jobs} jobs{failed}{_work(progress, pace)}, {now - start:.0f} s"
                f"{_left(pace)}{running}{_queued(progress)}",
                err=True,
            )

    yield show


def _work(progress: Progress, pace: Pace) -> str:
    """What is done of what there is to do, by kind, with the rate of what was done in this run."""
    parts = []
    for one in progress.work:
        rate = pace.rate(one.unit)
        speed = "" if rate is None or one.done >= one.total else f" ({_rate(rate)})"
        parts.append(f", {one.done:,}/{one.total:,} {one.unit}{speed}")
    return "".join(parts)


def _rate(rate: float) -> str:
    return f"{rate:.0f}/s" if rate >= 10 else f"{rate:.1f}/s" if rate >= 0.1 else f"{rate * 60:.2g}/min"


def _left(pace: Pace) -> str:
    seconds = pace.seconds_left()
    if not seconds:
        return ""
    if seconds < 90:
        return f", about {seconds:.0f} s left"
    return f", about {seconds / 60:.0f} min left" if seconds < 5400 else f", about {seconds / 3600:.1f} h left"


def _running(progress: Progress) -> str:
    more = f" and {len(progress.running) - 1} more" if len(progress.running) > 1 else ""
    return f"{progress.running[0]}{more}" if progress.running else ""


def _queued(progress: Progress) -> str:
    return "".join(f"; {name}: {queue.words}" for name, queue in progress.queues if queue.words)
