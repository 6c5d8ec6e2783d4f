"""Child processes: how one of this package's modules is run by a process of its own."""

from __future__ import annotations

import sys


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs a module with this interpreter.

    The working folder is kept out of the module path (`-P`): it is a person's own, and a `random.py` that lies
    there must not be taken for the library's.
    """
    return [sys.executable, "-P", "-m", module, *arguments]
