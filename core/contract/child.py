"""Child processes: how one of this package's modules is run by a process of its own."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs a module with this interpreter.

    The working folder is kept out of the module path (`-P`): it is a person's own, and a `random.py` that lies
    there must not be taken for the library's.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Let processes that are started within this not hear Ctrl-C, which a terminal sends to the whole group.

    What is blocked stays so in a child, from before its first import on; it would print a traceback there.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
