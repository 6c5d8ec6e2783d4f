"""Connections that do not wait for ever: HTTP as uvicorn speaks it, with a deadline for each request's head."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from windowshift.backends.serve.api_error import ApiError
from windowshift.backends.serve.limits import Limits


def protocol(limits: Limits) -> type[H11Protocol]:
    """A protocol class for uvicorn that keeps to `limits.connections` and `limits.head_seconds`."""

    class Connection(H11Protocol):
        """A client that opens a connection must send a request's head in time, again and again."""

        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                self._end(
                    ApiError(503, f"{limits.connections} connections are open, as many as this server takes: try later")
                )
                return
            self._start()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.transport.is_closing() or (self.cycle is not None and not self.cycle.response_complete):
                self._stop()
            elif self._deadline is None:
                self._start()  # a further request has begun on a connection that was kept

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            self._end(ApiError(400, msg))

        def _start(self) -> None:
            self._deadline = self.loop.call_later(limits.head_seconds, self._late)

        def _stop(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _late(self) -> None:
            self._deadline = None
            if self.transport.is_closing() or (self.cycle is not None and not self.cycle.response_complete):
                return
            self._end(ApiError(408, f"no whole request came within {limits.head_seconds:g} seconds"))

        def _end(self, error: ApiError) -> None:
            """Answer outside of any request, and close."""
            self._stop()
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                body = json.dumps(error.body()).encode()
                head: list[tuple[Any, Any]] = [
                    (b"content-type", b"application/json"),
                    (b"content-length", str(len(body)).encode()),
                    (b"connection", b"close"),
                ]
                for event in (h11.Response(status_code=error.status, headers=head), h11.Data(body), h11.EndOfMessage()):
                    self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

    return Connection
