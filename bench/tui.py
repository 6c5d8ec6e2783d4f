"""The terminal UI on a store of a million completions: first paint, keys, a live grid, memory."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.measurement import Measurement, median, percentile
from bench.store import BEHAVIOURS, CELL_ROWS, fill
from bench.terminal import Terminal
from windowshift.core.contract.records import Summary
from windowshift.core.store.reader import Reader
from windowshift.core.store.writer import Writer

UPDATES = 100
"""Cells that a live run changes each second."""

_TRIVIAL = """
from textual.app import App
from textual.widgets import Static
class Trivial(App):
    def compose(self):
        yield Static("bench")
Trivial().run()
"""


def measure_tui(
    folder: Path, cells: int = 2000, opened: int = 60, seconds: float = 10.0, starts: int = 7
) -> Iterator[Measurement]:
    """Measure everything on one generated store, in a real pseudo-terminal of 160×50."""
    workspace = folder / "million"
    writer = Writer(workspace)
    fill(writer, cells)
    writer.close()
    yield from measure_workspace(workspace, opened, seconds, starts)


def measure_workspace(workspace: Path, opened: int, seconds: float, starts: int) -> Iterator[Measurement]:
    """Measure on a store that is there already."""
    reader = Reader(workspace)
    experiment = reader.experiment("bench")
    assert experiment is not None
    size = f"{experiment.cells_total * CELL_ROWS:,} completions in {experiment.cells_total:,} cells"
    reader.close()
    yield _first_paint(workspace, starts, size)
    yield from asyncio.run(_open_cells(workspace, opened, size))
    yield from _keys(workspace, size)
    yield from _live(workspace, seconds, size)


def _command(workspace: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "windowshift", "tui", str(workspace), *more]


def _first_paint(workspace: Path, starts: int, size: str) -> Measurement:
    ours, bare = [], []
    for _ in range(starts):  # in turns, so that a busy machine slows both
        for times, command in ((bare, [sys.executable, "-c", _TRIVIAL]), (ours, _command(workspace))):
            terminal = Terminal(command)
            try:
                times.append(1000 * terminal.wait_for(b"bench"))
            finally:
                terminal.close()
    return Measurement(
        "TUI: process start to the list of experiments", median(ours), "ms", target=400, baseline=median(bare),
        against="a Textual app with one word", note=size,
    )  # fmt: skip


async def _open_cells(workspace: Path, opened: int, size: str) -> list[Measurement]:
    """Open random cells, each once, in the app without a terminal: from the key's action to the drawn screen."""
    from windowshift.tui.app import WindowshiftApp
    from windowshift.tui.read.snapshot import CellKey
    from windowshift.tui.screens.cell.screen import CellScreen

    reader = Reader(workspace)
    cells = reader.cells(1, BEHAVIOURS[0])
    reader.close()
    times: list[float] = []
    app = WindowshiftApp(workspace)
    async with app.run_test(size=(160, 50)) as pilot:
        for cell in random.Random(1).sample(cells, min(opened + 1, len(cells))):
            key = CellKey(cell.arm, cell.generate, cell.train, cell.evaluate, cell.seed, cell.step)
            start = time.perf_counter()
            app.open("cell", "bench", key, BEHAVIOURS[0])
            while not (isinstance(app.screen, CellScreen) and app.screen.ready and app.screen.completions.text_of(0)):
                await asyncio.sleep(0.001)
            app.screen._compositor.render_strips()
            times.append((time.perf_counter() - start) * 1000)
            app.pop_screen()
            await pilot.pause()
    del times[0]  # it imports numpy and the screen
    return [
        Measurement(
            f"TUI: open any cell, {name}", percentile(times, share), "ms", target=100 if name == "p95" else None,
            note=f"{size}, {len(times)} random cells, numbers, phrases and first texts on screen",
        )
        for name, share in (("p50", 0.5), ("p95", 0.95))
    ]  # fmt: skip


def _keys(workspace: Path, size: str) -> Iterator[Measurement]:
    terminal = Terminal(_command(workspace, "--open", "bench/data/train10/eval10"))
    try:
        terminal.wait_for(b"completions")
        terminal.quiet(1.5)
        answers = []
        for number in range(120):
            answers.append(terminal.answer(b"j" if number % 60 < 50 else b"k"))
            terminal.quiet(0.05)
        times = [milliseconds for milliseconds, _ in answers]
        note = f"{size}; {median([size for _, size in answers]):.0f} bytes a key"
        yield Measurement(
            "TUI: key to paint in the completions, p95", percentile(times, 0.95), "ms", target=30, note=note
        )
        terminal.send(b"\x1b")
        terminal.quiet(3.0)
        yield Measurement("TUI: resident memory, a cell and the fitted grid seen", terminal.memory(), "MB", target=150)
    finally:
        terminal.close()


def _live(workspace: Path, seconds: float, size: str) -> Iterator[Measurement]:
    """Let summaries change under the grid, 100 cells a second, one commit each."""
    terminal = Terminal(_command(workspace, "--open", "bench"))
    writer = Writer(workspace)
    try:
        terminal.wait_for(b"train10")
        terminal.quiet(3.0)
        shown = {name for name in (f"train{n}" for n in range(64)) if name.encode() in terminal.written}
        reader = Reader(workspace)
        jobs = [cell.job for cell in reader.cells(1, BEHAVIOURS[0])]
        reader.close()
        rng = random.Random(2)
        before, cpu, start = len(terminal.written), terminal.cpu(), time.perf_counter()
        done = 0
        while (now := time.perf_counter() - start) < seconds:
            if done < now * UPDATES:
                mean = rng.uniform(150, 450)
                writer.put_summary(
                    rng.choice(jobs), BEHAVIOURS[0], Summary(CELL_ROWS, 0, 0, mean, 80.0, mean - 7, mean + 7)
                )
                done += 1
            terminal.read(0.002)
        wall = time.perf_counter() - start
        used = 100 * (terminal.cpu() - cpu) / wall
        wire = (len(terminal.written) - before) / wall / 1000
        rate = f"{done / wall:.0f} cells/s changed, one commit each; {size}"
        yield Measurement("TUI: processor while cells change", used, "% of a core", target=10, note=rate)
        yield Measurement(
            "TUI: bytes a second for each visible row that changes", wire / max(1, len(shown)), "kB/s", target=2,
            note=f"{wire:.1f} kB/s in all, {len(shown)} rows on screen",
        )  # fmt: skip
    finally:
        writer.close()
        terminal.close()
