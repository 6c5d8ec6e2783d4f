"""The progress of a headless run: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from windowshift.core.progress import Progress

LINE_SECONDS = 10.0


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
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} cells"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[now]}", markup=False),
    )
    with RichProgress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None, now="")

        def show(progress: Progress) -> None:
            now = progress.running[0] if progress.running else ""
            more = f" and {len(progress.running) - 1} more" if len(progress.running) > 1 else ""
            failed = f" ({progress.failed} failed)" if progress.failed else ""
            now = f"{now}{more}{failed}{_queued(progress)}"
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
        if (now - shown >= LINE_SECONDS or ended) and progress != last:
            shown, last = now, progress
            failed = f", {progress.failed} jobs failed" if progress.failed else ""
            sys.stderr.write(
                f"{name}: {progress.cells_done}/{progress.cells} cells, "
                f"{progress.jobs_done}/{progress.jobs} jobs{failed}, {now - start:.0f} s{_queued(progress)}\n"
            )
            sys.stderr.flush()

    yield show


def _queued(progress: Progress) -> str:
    return "".join(f"; {name}: {queue.words}" for name, queue in progress.queues if queue.words)
