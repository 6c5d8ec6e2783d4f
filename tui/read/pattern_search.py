"""Regular expressions over a cell, in a process of its own.

Some expressions take longer than the sun has left, and Python's matcher holds the interpreter meanwhile:
only a process can be ended. `python -m windowshift.tui.read.pattern_search` is that process.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from windowshift.core.contract.child import python_module
from windowshift.core.contract.errors import WindowshiftError
from windowshift.core.store.reader import Reader
from windowshift.tui.read.row_filter import FilterError, Pattern

PATIENCE = 5.0
"""Seconds for one expression over one cell."""

MEMORY = 2 << 30
_LOOK = 0.02


def find_rows(
    workspace: Path,
    job: int,
    pattern: Pattern,
    *,
    cancelled: Callable[[], bool] = lambda: False,
    patience: float = PATIENCE,
) -> frozenset[int]:
    """Return the rows of a job whose completion, prompt or phrase a pattern is found in.

    Args:
        workspace: the folder.
        job: the number of the job.
        pattern: what is looked for; `without` is left to the caller.
        cancelled: asked many times a second; True gives up and returns nothing.
        patience: seconds.

    Raises:
        FilterError: it takes longer, or the process failed.
    """
    flags = "i" if pattern.any_case else "-"
    command = python_module("windowshift.tui.read.pattern_search")
    process = subprocess.Popen(
        [*command, str(workspace), str(job), str(patience), flags, pattern.pattern],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
    )  # fmt: skip
    end = time.monotonic() + patience
    with process:
        while True:
            try:
                found, said = process.communicate(timeout=_LOOK)
                break
            except subprocess.TimeoutExpired:
                late = time.monotonic() > end
                if late or cancelled():
                    process.kill()
                    process.communicate()
                    if late:
                        raise FilterError(_slow(pattern, patience)) from None
                    return frozenset()
    if process.returncode < 0:
        raise FilterError(_slow(pattern, patience))
    if process.returncode:
        last = (said.strip().splitlines() or ["no reason given"])[-1]
        raise FilterError(f"{pattern.shown} could not be looked for: {last}")
    return frozenset(map(int, found.split()))


def _slow(pattern: Pattern, patience: float) -> str:
    return (
        f"{pattern.shown} takes more than {patience:g} s here and was stopped: nested repeats such as (a+)+ do; "
        "write it without, or look for a plain text"
    )


def _main(workspace: str, job: str, patience: str, flags: str, text: str) -> None:
    import resource

    # Should nobody be left to end it, it ends by itself.
    seconds = int(float(patience)) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    pattern = re.compile(text, re.IGNORECASE if flags == "i" else 0)
    rows = [
        str(found.row)
        for found in Reader(Path(workspace)).iter_completions(int(job), "")
        if pattern.search(found.text) or pattern.search(found.prompt) or pattern.search(found.phrase or "")
    ]
    sys.stdout.write(" ".join(rows))


if __name__ == "__main__":
    try:
        _main(*sys.argv[1:])
    except (WindowshiftError, MemoryError, RecursionError) as error:
        sys.exit(str(error) or type(error).__name__)
