"""What the TUI tests share: an app on a generated workspace with a frozen clock, and waiting for a predicate."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.screen import Screen

from tests.generated_store import fill_job, generate_store
from windowshift.core.contract.prompts import Prompt
from windowshift.core.store import writer as writer_module
from windowshift.core.store.writer import Writer
from windowshift.tui.app import WindowshiftApp
from windowshift.tui.read.deep_link import parse_link
from windowshift.tui.screens.store_screen import StoreScreen

STARTED = 1_700_000_000.0
NOW = STARTED + 52.0
PATIENCE = 10.0


def freeze(monkeypatch: pytest.MonkeyPatch, at: float = STARTED) -> None:
    """Let a writer write this time."""
    monkeypatch.setattr(writer_module, "time", SimpleNamespace(time=lambda: at))


def store(path: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Writer:
    """Generate a workspace; where cells are left to do, a run is alive at `NOW`."""
    freeze(monkeypatch)
    writer = generate_store(path, **options)
    if options.get("running"):
        run = writer.start_run(1)
        freeze(monkeypatch, NOW)
        writer.heartbeat(run)
    return writer


def app(
    path: Path,
    experiment: str | None = "med-short",
    *,
    now: float = NOW,
    look_every: float = 0.25,
    state: Path | None = None,
) -> WindowshiftApp:
    """Make an app whose clock stands still; it looks at the store seldom enough for a pilot to see it idle."""
    link = parse_link(experiment) if experiment else None
    return WindowshiftApp(path, link=link, clock=lambda: now, look_every=look_every, state=state)


async def until(pilot: Pilot[None], predicate: Callable[[], Any], what: str = "", patience: float = PATIENCE) -> None:
    """Wait for a predicate.

    Raises:
        AssertionError: it stayed false.
    """
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if predicate():
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"waited {patience:.0f} s for {what or predicate}")


async def arrive(pilot: Pilot[None], kind: type[Screen[Any]]) -> Any:
    """Wait for a screen with its first snapshot and everything read; return it."""

    def there() -> bool:
        screen = pilot.app.screen
        if not isinstance(screen, kind):
            return False
        if isinstance(screen, StoreScreen):
            return screen.snapshot is not None and not screen._loading and not busy(pilot)
        return True

    await until(pilot, there, kind.__name__)
    await pilot.pause()
    return pilot.app.screen


def busy(pilot: Pilot[None]) -> bool:
    """Whether any worker but the watch is at work."""
    return any(worker.is_running and worker.group != "watch" for worker in pilot.app.workers)


async def settle(pilot: Pilot[None]) -> None:
    """Wait until no worker is at work and nothing is left to draw."""
    quiet = 0
    while quiet < 3:  # what has just been drawn may start a worker of its own
        await until(pilot, lambda: not busy(pilot), "workers")
        await pilot.pause()
        quiet = 0 if busy(pilot) else quiet + 1


def finish_job(writer: Writer, label: str, mean: float, *, rows: int = 40) -> int:
    """Do a pending evaluation, as a runner would; return the job's number."""
    ((number,),) = writer.connection.execute("SELECT n FROM jobs WHERE label = ?", (label,)).fetchall()
    prompts = [Prompt(f"e{i}", f"What is number {i}?") for i in range(rows)]
    with writer.batch():
        fill_job(writer, number, mean, prompts, random.Random(1))
        writer.set_job(number, "done", experiment=1)
    return int(number)


def screen_text(pilot: Pilot[None]) -> str:
    """What is on screen, without styles."""
    width, height = pilot.app.size
    lines = pilot.app.screen._compositor.render_strips()
    assert len(lines) == height
    return "\n".join("".join(segment.text for segment in line)[: width * 2] for line in lines)
