"""What a run has of its trackers: a process each, which it starts, and which it waits for at its end, for so long."""

from __future__ import annotations

import json
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

from windowshift.core.contract.child import deaf_to_interrupts, python_module
from windowshift.say import say

END_SECONDS = 60.0
"""How long a run that is over waits for a tracker that has not sent everything."""


class Tracking:
    """One tracker of one run.

    Args:
        name: the tracker's, as `--track` takes it.
        workspace: the run's.
        experiment: its name.
    """

    def __init__(self, name: str, workspace: Path, experiment: str) -> None:
        self._name = name
        self._failed = self._late = False
        self._untold: int | None = None
        self._ended = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        try:
            self._process = self._start(name, workspace, experiment)
        except OSError as error:
            self._fail(f"no process for it ({error.strerror})")
            self._ended.set()
            return
        self._listener = threading.Thread(target=self._listen, name=f"track {name}", daemon=True)
        self._listener.start()

    @staticmethod
    def _start(name: str, workspace: Path, experiment: str) -> subprocess.Popen[str]:
        with deaf_to_interrupts():
            return subprocess.Popen(
                python_module("windowshift.tracker_process", name, str(workspace), experiment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                errors="replace",
            )

    def over(self, state: str) -> None:
        """Tell the tracker how the run ended."""
        with suppress(OSError):  # it may have ended
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.write(f"{state}\n")
                self._process.stdin.close()

    def wait(self) -> None:
        """Wait until it has everything, `END_SECONDS` at most, and say what it has not."""
        if self._process is None:
            return
        try:
            if not self._ended.wait(2.0):
                say(f"telling {self._name} the rest ...", err=True)
            self._ended.wait(END_SECONDS)
        finally:  # a person who does not want to wait presses Ctrl-C
            late = self._late = not self._ended.is_set()
            self._process.kill()
            self._process.wait()
            self._listener.join(1.0)
        again = "the same command again tells it the rest"
        if late:
            say(f"note: {self._name} has not taken everything within {END_SECONDS:g} s; {again}", err=True)
        elif self._failed and self._untold != 0:
            count = "some" if self._untold is None else f"{self._untold}"
            say(f"note: {self._name} was not told {count} of the losses and cells; {again}", err=True)

    def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        whole = False
        with suppress(ValueError, OSError):
            for line in self._process.stdout:
                answer = json.loads(line)
                if "failed" in answer:
                    self._fail(str(answer["failed"]))
                self._untold = answer.get("untold")
                whole = "done" in answer or "untold" in answer
                if whole:
                    self._ended.set()
        if not whole and not self._failed and not self._late:
            self._fail("its process ended without a word")
        self._ended.set()

    def _fail(self, why: str) -> None:
        self._failed = True
        say(f"note: {self._name} is told no more, and the run goes on: {why}", err=True)
