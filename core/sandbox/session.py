"""A session with a program in the sandbox: one request, one reply, within time and size."""

from __future__ import annotations

import json
import os
import secrets
import selectors
import time
from types import TracebackType
from typing import Any, Self

from windowshift.core.sandbox.confinement import REPLY_BYTES, CandidateLimits, Confined, start


class CallResult:
    """What came back for one request.

    Attributes:
        value: the value, as `inside.encode` writes it; None beside an error.
        error: what was raised, or why nothing came back; None where there is a value.
        alive: whether the program can be asked again.
    """

    __slots__ = ("alive", "error", "value")

    def __init__(self, value: Any, error: str | None, alive: bool) -> None:
        self.value, self.error, self.alive = value, error, alive


class Session:
    """One program in the sandbox. A context manager; made and used by one thread.

    Raises:
        SandboxError: nothing confines code on this machine.
    """

    def __init__(self, limits: CandidateLimits) -> None:
        self._limits = limits
        self._confined: Confined = start(limits)
        self._selector = selectors.DefaultSelector()
        process = self._confined.process
        assert process.stdin is not None and process.stdout is not None  # noqa: PT018 - both are pipes
        self._in, self._out = process.stdin.fileno(), process.stdout.fileno()
        os.set_blocking(self._out, False)
        os.set_blocking(self._in, False)
        self._selector.register(self._out, selectors.EVENT_READ)
        self._buffer = b""
        self._deadline = time.monotonic() + limits.total_seconds

    def ask(self, do: str, text: str, **more: Any) -> CallResult:
        """Have something executed or evaluated.

        Args:
            do: `execute` (no value comes back), `value`, or `fresh` (a value, in a new name space).
            text: the code.
            more: `setup` and `values` of `fresh`.
        """
        token = secrets.token_hex(16)
        request = json.dumps({"token": token, "do": do, "text": text, **more}).encode() + b"\n"
        until = min(self._deadline, time.monotonic() + self._limits.seconds)
        if not self._write(request, until):
            return CallResult(None, "the program ended by itself", False)
        while b"\n" not in self._buffer:
            left = until - time.monotonic()
            if left <= 0:
                whole = self._deadline <= until
                seconds = self._limits.total_seconds if whole else self._limits.seconds
                return CallResult(None, f"no answer within {seconds:g} s", False)
            if not self._selector.select(left):
                continue
            try:
                data = os.read(self._out, 1 << 16)
            except BlockingIOError:
                continue
            if not data:
                return CallResult(None, "the program ended by itself", False)
            self._buffer += data
            if len(self._buffer) > REPLY_BYTES + 1000:
                return CallResult(None, "it wrote more than a value can be", False)
        line, _, self._buffer = self._buffer.partition(b"\n")
        return self._read(line, token)

    def _write(self, data: bytes, until: float) -> bool:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._in, view) :]
            except BlockingIOError:
                if time.monotonic() > until:
                    return False
                time.sleep(0.001)
            except OSError:
                return False
        return True

    def _read(self, line: bytes, token: str) -> CallResult:
        # Whatever runs beside a candidate can write here: anything but a reply of the agreed form is none.
        try:
            reply = json.loads(line)
            if not isinstance(reply, dict) or reply.get("token") != token:
                return CallResult(None, "something else was written in place of a value", False)
            error = reply.get("error")
            if error is not None:
                return CallResult(None, str(error)[:300], True)
            return CallResult(reply.get("value"), None, True)
        except (ValueError, RecursionError, MemoryError):
            return CallResult(None, "something else was written in place of a value", False)

    def close(self) -> None:
        """End the program."""
        self._selector.close()
        self._confined.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
