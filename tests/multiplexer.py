"""A real terminal for tests: a program in a tmux session of its own, its screen as text."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


class Terminal:
    """One tmux session."""

    def __init__(self, socket: Path) -> None:
        self.tmux = ["tmux", "-S", str(socket)]

    def run(self, *arguments: str) -> str:
        """Run a tmux command and return what it prints."""
        done = subprocess.run([*self.tmux, *arguments], capture_output=True, text=True, check=True, timeout=30)
        return done.stdout

    @property
    def screen(self) -> str:
        """What is on screen, without styles."""
        return self.run("capture-pane", "-p")

    def press(self, *keys: str) -> None:
        """Press keys, by tmux's names."""
        self.run("send-keys", *keys)

    def until(self, predicate: Callable[[str], Any], what: str, seconds: float = 60.0) -> Any:
        """Wait until a predicate of the screen is true, and return what it gave.

        Raises:
            AssertionError: it was not; the message holds the screen.
        """
        end = time.monotonic() + seconds
        while not (found := predicate(shown := self.screen)):
            assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}; the screen is\n{shown}"
            time.sleep(0.05)
        return found

    def shows(self, text: str, seconds: float = 60.0) -> None:
        """Wait until a text is on screen."""
        self.until(lambda screen: text in screen, f"“{text}”", seconds)


@contextmanager
def terminal(
    folder: Path, command: Sequence[str], *, columns: int = 160, rows: int = 50, **environment: str
) -> Iterator[Terminal]:
    """Run a command in a terminal; its exit code is printed when it ends, and the terminal stays."""
    if shutil.which("tmux") is None:
        pytest.fail("no tmux is installed: apt-get install tmux (`.ci/run` does)")
    shown = Terminal(folder / "tmux.sock")
    script = f"{shlex.join(command)}; echo ended with $?; exec cat"
    subprocess.run(
        [*shown.tmux, "-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows), script],
        check=True, timeout=30, env={**os.environ, "LC_ALL": "C.UTF-8", **environment},
    )  # fmt: skip
    try:
        yield shown
    finally:
        subprocess.run([*shown.tmux, "kill-server"], check=False, timeout=30)
