"""The demo in a real terminal: it fills, is walked through, left, looked at again, and killed while people watch."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.multiplexer import Terminal, terminal
from windowshift.core.store.liveness import live_state
from windowshift.core.store.reader import Reader

PYTHON = [sys.executable, "-m", "windowshift"]
MINUTES = 60.0
"""A busy machine takes a few for the first cells."""


def cells_done(screen: str) -> int:
    found = re.search(r"(\d+)/\d+ cells", screen)
    return int(found[1]) if found else -1


@pytest.mark.slow
def test_the_demo_from_the_first_cell_to_a_killed_run(tmp_path: Path) -> None:
    workspace = tmp_path / "demo"
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    pid = 0
    try:
        (tmp_path / "first").mkdir()
        with terminal(tmp_path / "first", [*PYTHON, "demo", "--workspace", str(workspace)], **state) as shown:
            pid = watch_and_walk(shown, workspace)
            shown.press("q")
            shown.shows("ended with 0")
            assert "The run of demo goes on." in shown.screen
        reader = Reader(workspace)
        wait_for_more(reader)
        (tmp_path / "second").mkdir()
        with terminal(tmp_path / "second", [*PYTHON, "tui", str(workspace)], **state) as shown:
            # Where it was left: the grid, with its pins.
            shown.shows("train↓")
            shown.shows("● running")
            os.kill(pid, signal.SIGKILL)
            shown.shows("! interrupted", seconds=60)
            assert "run the same command again to go on" in shown.screen
        reader.close()
    finally:
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def watch_and_walk(shown: Terminal, workspace: Path) -> int:
    """See the grid fill, go to a completion and back, compare two rows; return the run's process id."""
    first = shown.until(lambda screen: cells_done(screen) >= 1 and cells_done(screen), "a cell", 10 * MINUTES)
    shown.until(lambda screen: cells_done(screen) > max(first, 8), "a row of cells", 20 * MINUTES)
    run = Reader(workspace).run(1)
    assert run is not None
    shown.press("Up", "Home", "Enter")  # the base model, whose cells come first
    shown.shows("completions by row")
    assert "mean" in shown.screen
    shown.press("s", "s", "S")
    shown.shows("by length, long first")
    shown.press("/")
    shown.shows("score<3")  # what the filter may say stands in it while it is empty
    shown.press("-l", "len>20 end=stop")
    shown.press("Enter")
    shown.shows("len>20 · end=stop")
    shown.press("Home", "Enter")  # the cursor may have stayed on a row, where the store was read meanwhile
    shown.shows("1 of ")
    assert "prompt" in shown.screen
    shown.press("t")
    shown.shows("<|assistant|>")
    assert "it read another prompt" not in shown.screen  # as many tokens as the run counted
    shown.press("Escape")
    shown.shows("completions by length")
    shown.press("Escape")
    shown.shows("train↓")
    shown.press("Down", "Space", "Down", "Space", "c")
    shown.shows("demo ▸ compare")
    shown.shows("difference 2−1")
    shown.press("Escape")
    shown.shows("train↓")
    return run.pid


def wait_for_more(reader: Reader) -> None:
    """Wait until the run, which nobody looks at any more, has done something else."""
    before = sum(job.done for job in reader.jobs(1))
    end = time.monotonic() + 5 * MINUTES
    while sum(job.done for job in reader.jobs(1)) <= before:
        assert time.monotonic() < end, "the run did not go on without its screens"
        time.sleep(0.05)
    row = reader.experiment("demo")
    assert row is not None
    assert live_state(row, reader.run(1)) == "running"
