"""Every screen that reads numbers, opened in the app: from the key's action until all is read and drawn.

Beside each stands a bare Textual screen of one word that the same app opens in the same minute: the machine is in both,
and the ratio is of the screens alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.generated_store import generate_store
from tests.learning_backend import TRAIN, Learner
from tests.scripted_backend import scripted

from bench.measurement import Measurement, median
from bench.store import BEHAVIOURS, fill
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer

if TYPE_CHECKING:
    from textual.screen import Screen

    from windowshift.tui.app import WindowshiftApp
    from windowshift.tui.read.snapshot import CellKey

LARGE_ROWS = 2000
PATIENCE = 60.0
Opening = tuple[str, str, tuple[Any, ...], Path]
"""What is measured, the screen's name, what it is opened with, and the workspace."""


def measure_screens(folder: Path, prompts: int = 200, rows: int = LARGE_ROWS, times: int = 15) -> Iterator[Measurement]:
    """Measure on three generated workspaces: both arms of a grid, cells of 2,000 completions, and one with controls."""
    from windowshift.tui.read.snapshot import CellKey

    arms, large, controls = folder / "arms", folder / "large", folder / "controls"
    generate_store(arms, prompts=prompts, data_size=prompts, steering=True).close()
    writer = Writer(large)
    fill(writer, 4, rows)
    writer.close()
    with pytest.MonkeyPatch.context() as patch:
        asyncio.run(scripted(patch, controls, backend=Learner(), train=TRAIN, size=20, prompts=prompts).go())
    reader = Reader(large)
    first = reader.cells(1, BEHAVIOURS[0])[0]
    reader.close()
    key = CellKey(first.arm, first.generate, first.train, first.evaluate, first.seed, first.step)
    small = CellKey("prefix", "med_short", "short", "long", 0, prompts)
    openings: list[Opening] = [
        (f"the grid, {prompts} prompts a cell", "grid", ("med-short",), arms),
        (f"a cell of {prompts} completions", "cell", ("med-short", small, BEHAVIOURS[0]), arms),
        (f"a cell of {rows:,} completions", "cell", ("bench", key, BEHAVIOURS[0]), large),
        (f"two rows compared, {prompts} prompts a cell", "compare", ("med-short", BEHAVIOURS[0]), arms),
        (f"steering, {prompts} prompts a cell", "steering", ("med-short",), arms),
        (f"the microscope, {prompts} prompts a cell", "microscope", ("scripted", BEHAVIOURS[0]), controls),
    ]
    for what, name, arguments, workspace in openings:
        pinned = tuple(small._replace(train=row) for row in ("short", "long")) if name == "compare" else ()
        yield asyncio.run(_opened(what, name, arguments, workspace, times, pinned))


async def _opened(
    what: str, name: str, arguments: tuple[Any, ...], workspace: Path, times: int, pinned: tuple[CellKey, ...]
) -> Measurement:
    from textual.screen import Screen as TextualScreen
    from textual.widgets import Static

    from windowshift.tui.app import WindowshiftApp
    from windowshift.tui.screens.services import screen_class

    class Bare(TextualScreen[None]):
        """One word."""

        def compose(self) -> Iterator[Static]:
            yield Static("bench")

    ours, bare = [], []
    app = WindowshiftApp(workspace)
    if pinned:
        app.places.pins.replace(arguments[0], pinned)
    async with app.run_test(size=(160, 50)) as pilot:
        for _ in range(times + 1):  # in turns, so that a busy machine slows both
            start = time.perf_counter()
            app.push_screen(Bare())
            await _until_drawn(app, Bare)
            bare.append(1000 * (time.perf_counter() - start))
            app.pop_screen()
            await pilot.pause()
            start = time.perf_counter()
            app.open(name, *arguments)
            await _until_drawn(app, screen_class(name))
            ours.append(1000 * (time.perf_counter() - start))
            app.pop_screen()
            await pilot.pause()
    return Measurement(
        f"TUI: open {what}", median(ours[1:]), "ms", baseline=median(bare[1:]), against="a bare screen of one word",
        note=f"until all is read and drawn; {times} times, the first one, which imports, left out",
    )  # fmt: skip


async def _until_drawn(app: WindowshiftApp, kind: type[Screen[Any]]) -> None:
    """Wait until the screen on top is of this kind, has all that it reads, and is drawn."""
    from windowshift.tui.screens.store_screen import StoreScreen

    quiet, end = 0, time.perf_counter() + PATIENCE
    while quiet < 2:  # what has just been drawn may start a worker of its own
        await asyncio.sleep(0.001)
        screen = app.screen
        if time.perf_counter() > end:
            raise TimeoutError(f"{kind.__name__} was not read and drawn within {PATIENCE:.0f} s, but {screen}")
        there = isinstance(screen, kind) and screen.is_running
        if isinstance(screen, StoreScreen):
            there = there and screen.ready and screen.snapshot is not None and not screen._loading
        at_work = any(worker.is_running and worker.group != "watch" for worker in app.workers)
        quiet = quiet + 1 if there and not at_work else 0
    app.screen._compositor.render_strips()
