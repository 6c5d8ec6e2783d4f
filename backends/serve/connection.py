"""HTTP as uvicorn speaks it, on connections that do not wait for ever and leave room for those who have the key."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from windowshift.backends.serve.api_error import ApiError
from windowshift.backends.serve.gate import has_key
from windowshift.backends.serve.limits import ServerLimits


def protocol(limits: ServerLimits) -> type[H11Protocol]:
    """A protocol class for uvicorn that keeps to `limits` of connections, of heads and of answers that nobody reads."""
    clock = itertools.count()

    class Connection(H11Protocol):
        """A client that opens a connection must send a request's head in time, again and again.

        Connections that say nothing, or that have not shown the key, make room for others.
        """

        _deadline: asyncio.TimerHandle | None = None
        _stalled: asyncio.TimerHandle | None = None
        _known = False
        used = 0

        @property
        def known(self) -> bool:
            """Whether a request with the key came over it."""
            self._known = self._known or (self.scope is not None and has_key(self.scope))
            return self._known

        @property
        def busy(self) -> bool:
            """Whether a request is being answered."""
            return self.cycle is not None and not self.cycle.response_complete

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
            super().connection_made(transport)
            self.used = next(clock)
            others = [each for each in self.connections if isinstance(each, Connection) and each is not self]
            strangers = [each for each in others if not each.known]
            if len(strangers) >= limits.strangers:
                _oldest(strangers).make_room()
            elif len(others) >= limits.connections:
                idle = strangers or [each for each in others if not each.busy]
                if not idle:
                    self._end(
                        ApiError(
                            503, f"{limits.connections} connections are open, as many as this server takes: try later"
                        )
                    )
                    return
                _oldest(idle).make_room()
            self._start()

        def make_room(self) -> None:
            """Close, as another connection needs the place."""
            self.connections.discard(self)  # its end may take a moment
            if self.busy or self.known:  # an answer nobody asked for would be taken for that to the next request
                self.transport.abort()
            else:
                self._end(ApiError(503, "too many connections are open that have not shown the key: try again"))

        def data_received(self, data: bytes) -> None:
            self.used = next(clock)
            super().data_received(data)
            if self.transport.is_closing() or self.busy:
                self._stop()
            elif self._deadline is None:
                self._start()  # a further request has begun on a connection that was kept

        def pause_writing(self) -> None:
            super().pause_writing()
            if self._stalled is None:
                self._stalled = self.loop.call_later(limits.send_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            self._unstall()
            super().resume_writing()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            self._unstall()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            self._end(ApiError(400, msg))

        def _unstall(self) -> None:
            if self._stalled is not None:
                self._stalled.cancel()
                self._stalled = None

        def _start(self) -> None:
            self._deadline = self.loop.call_later(limits.head_seconds, self._late)

        def _stop(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _late(self) -> None:
            self._deadline = None
            if self.transport.is_closing() or self.busy:
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

    def _oldest(some: Iterable[Connection]) -> Connection:
        """The one that was longest not heard of."""
        return min(some, key=lambda each: each.used)

    return Connection
