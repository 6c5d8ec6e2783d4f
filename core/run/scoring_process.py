"""A process that holds one scorer; started by `windowshift.core.run.scoring_workers`, ends when its socket closes."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

from windowshift.core.contract.terminal import guard

GRACE_SECONDS = 5  # the parent ends a process in time; this is for one whose parent is gone


def main() -> None:
    """Serve the connection whose file descriptor is the first argument."""
    # Ctrl-C goes to the whole group; the parent decides what happens, and closes the connection. It is blocked since
    # before this process began, and what is started here must not wait for it either.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)  # scorers print where they like: a command keeps its standard output to what it says itself
    guard()
    connection = Connection(int(sys.argv[1]))
    parent = os.getppid()
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    try:
        sys.path[:] = connection.recv()
        from windowshift.core.run.scoring_workers import call_batch

        try:
            scorer = connection.recv()
        except Exception as error:  # its module is not there, or it cannot be pickled
            connection.send(f"{type(error).__name__}: {error}")
            return
        connection.send(None)
        while True:
            samples, timeout = connection.recv()
            # Even if the parent was killed and the scorer never lets go of the interpreter: the kernel ends it.
            signal.alarm(0 if timeout is None else math.ceil(timeout) + GRACE_SECONDS)
            try:
                answer: Any = (call_batch(scorer, samples), None)
            except (Exception, SystemExit) as error:
                answer = (None, f"{type(error).__name__}: {' '.join(str(error).split())}")
            signal.alarm(0)
            connection.send(answer)
    except (EOFError, OSError):
        return  # the parent is gone


def _watch(parent: int) -> None:
    """End with the parent even while the scorer holds on to the main thread."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


if __name__ == "__main__":
    main()
