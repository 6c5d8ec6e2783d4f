"""The request log: a line of JSON for each request, without its texts."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from windowshift.core.contract import sanitise
from windowshift.core.contract.backoff import Backoff
from windowshift.core.contract.redaction import Redactor

if TYPE_CHECKING:
    from windowshift.backends.serve.api_error import ApiError
    from windowshift.backends.serve.choice import Choice, Usage
    from windowshift.backends.serve.sampling_request import SamplingRequest

MOST_BYTES = 64 << 20
GONE = 499
_PLACE = "windowshift.log_entry"


class LogEntry:
    """What the log will say of a request; endpoints add what they know.

    Args:
        texts: whether prompts and answers are kept.
    """

    def __init__(self, *, texts: bool = False) -> None:
        self._texts = texts
        self.fields: dict[str, Any] = {}
        self.problem: ApiError | None = None

    def asked(self, wanted: SamplingRequest) -> None:
        """A request for text was read."""
        self.fields["model"] = wanted.model[:200]
        if wanted.stream:
            self.fields["stream"] = True
        if self._texts:
            self.fields["request"] = wanted.model_dump(exclude_unset=True)

    def said(self, choices: Sequence[Choice], usage: Usage) -> None:
        """It was answered."""
        self.fields |= {"prompt_tokens": usage.prompt, "completion_tokens": usage.drawn}
        if self._texts:
            self.fields["answers"] = [choice.text for choice in choices]

    def refused(self, error: ApiError) -> None:
        """It was answered with an error."""
        self.fields |= {name: value for name, value in (("code", error.code), ("param", error.param)) if value}

    def failed(self, error: ApiError) -> None:
        """It failed once its answer had begun: the client was told with another status."""
        self.problem = error


def entry(scope: Scope) -> LogEntry:
    """The log's entry of a request; one that nobody reads where there is no log."""
    found: LogEntry = scope.setdefault(_PLACE, LogEntry())
    return found


class RequestLogFile:
    """Lines in a file that is put aside once it is large, and of which two are kept.

    Where it cannot be written (a full disk), lines are lost and counted, it is said once, and it is tried again later
    and later; no request fails of it.

    Args:
        path: the file.
        most_bytes: how large it may be.
        clock: seconds.
    """

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._most, self._clock = path, most_bytes, clock
        self._backoff = Backoff(first=1.0, most=60.0)
        self._lost, self._not_before = 0, 0.0

    def write(self, value: dict[str, Any]) -> None:
        """Append a line."""
        if self._clock() < self._not_before:
            self._lost += 1
            return
        lines = [{"at": value.get("at"), "lost": self._lost}] if self._lost else []
        data = b"".join(json.dumps(each).encode("ascii") + b"\n" for each in (*lines, value))
        size = 0
        try:
            size = self._path.stat().st_size if self._path.exists() else 0
            if size + len(data) > self._most and size:
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
                size = 0
            with open(self._path, "ab", opener=_private) as file:
                file.write(data)
        except OSError as error:
            self._failed(error, size)
        else:
            self._lost = 0
            self._backoff.succeeded()

    def _failed(self, error: OSError, size: int) -> None:
        with suppress(OSError):  # a part of a line would spoil the next one
            if self._path.stat().st_size > size:
                with self._path.open("ab") as file:
                    file.truncate(size)
        if not self._lost:
            reason = sanitise.line(error.strerror or str(error))
            sys.stderr.write(f"windowshift serve: the request log {self._path} cannot be written ({reason})\n")
        self._lost += 1
        self._not_before = self._clock() + self._backoff.failed()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)  # it may have texts of clients


class RequestLog:
    """ASGI middleware that writes a line for each request once it is over.

    Args:
        app: what is behind it.
        file: where lines go.
        redactor: takes keys out of what a client wrote.
        texts: whether prompts and answers are kept.
    """

    def __init__(self, app: ASGIApp, *, file: RequestLogFile, redactor: Redactor, texts: bool) -> None:
        self._app, self._file, self._redactor, self._texts = app, file, redactor, texts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        noted = scope[_PLACE] = LogEntry(texts=self._texts)
        status, request_id, whole = 0, "", False

        async def answer(message: Message) -> None:
            nonlocal status, request_id, whole
            if message["type"] == "http.response.start":
                status = message["status"]
                request_id = Headers(raw=message["headers"]).get("x-request-id", "")
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                whole = True

        try:
            await self._app(scope, receive, answer)
        finally:
            if noted.problem is not None:
                status = noted.problem.status
            elif not whole:
                status = GONE
            self._file.write(
                {
                    "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
                    "id": request_id,
                    "method": str(scope["method"])[:16],
                    "route": self._route(scope),
                    "status": status,
                    "seconds": round(time.perf_counter() - begun, 3),
                    **self._without_keys(noted.fields),
                }
            )

    def _route(self, scope: Scope) -> str:
        """The route as it is declared; of a path that has none, its beginning."""
        route = scope.get("route")
        path = getattr(route, "path", None)
        return path if isinstance(path, str) else self._redactor.said(scope["path"], 100)

    def _without_keys(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._redactor.redact(value)
        if isinstance(value, dict):
            return {key: self._without_keys(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._without_keys(each) for each in value]
        return value
