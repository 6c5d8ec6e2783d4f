"""A program in a pseudo-terminal: its first paint, its answers to keys, its bytes, its processor time and memory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Sequence
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


class Terminal:
    """Runs a command in a pseudo-terminal of its own and reads what it writes."""

    def __init__(self, command: Sequence[str], *, columns: int = 160, rows: int = 50) -> None:
        self.started = time.perf_counter()
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.environ |= {
                "TERM": "xterm-256color",
                "COLORTERM": "truecolor",
                "COLUMNS": str(columns),
                "LINES": str(rows),
            }
            os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
            os.execvp(command[0], list(command))
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.written = b""

    def read(self, seconds: float) -> bytes:
        """Return what is written within a time, at once when something is."""
        if not select.select([self._fd], [], [], seconds)[0]:
            return b""
        try:
            found = os.read(self._fd, 1 << 20)
        except OSError:
            return b""  # it ended
        self.written += found
        return found

    def wait_for(self, text: bytes, seconds: float = 60.0) -> float:
        """Wait until a text was written since the start; return the seconds since the start.

        Raises:
            TimeoutError: it was not.
        """
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            if text in self.written:
                return time.perf_counter() - self.started
            self.read(0.05)
        raise TimeoutError(f"{text!r} did not appear; last was {self.written[-300:]!r}")

    def quiet(self, seconds: float = 0.6, most: float = 60.0) -> None:
        """Wait until nothing is written for a while."""
        end = time.perf_counter() + most
        while self.read(seconds) and time.perf_counter() < end:
            pass

    def send(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._fd, keys)

    def answer(self, key: bytes) -> tuple[float, int]:
        """Press a key; return the milliseconds to the last byte of its first paint, and the bytes."""
        start = time.perf_counter()
        self.send(key)
        first = self.read(5.0)
        return (time.perf_counter() - start) * 1000, len(first)

    def cpu(self) -> float:
        """Return the processor seconds it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self) -> float:
        """Return its resident memory in MB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        return 0.0

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.waitpid(self.pid, 0)
        with contextlib.suppress(OSError):
            os.close(self._fd)
