"""Real Python processes for tests, and waiting for what they do."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

DEADLINE = 20.0  # seconds; a busy machine is slow, a broken test must still end


def wait_until(predicate: Callable[[], object], what: str = "the condition", deadline: float = DEADLINE) -> None:
    """Wait until a predicate is true.

    Raises:
        AssertionError: it was not within `deadline` seconds.
    """
    end = time.monotonic() + deadline
    while not predicate():
        assert time.monotonic() < end, f"waited {deadline} s for {what}"
        time.sleep(0.002)


@contextmanager
def python(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run Python code in a process of its own; it is killed when the block ends."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run_python(code: str, *arguments: object) -> str:
    """Run Python code to its end and return what it printed.

    Raises:
        AssertionError: it failed; the message holds its standard error.
    """
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def line(process: subprocess.Popen[str]) -> str:
    """Return the next line that a process prints; a process that ended instead fails the test."""
    assert process.stdout is not None
    found = process.stdout.readline().strip()
    if not found:
        assert process.stderr is not None
        raise AssertionError(f"the process ended: {process.stderr.read()}")
    return found
