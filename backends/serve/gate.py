"""What stands before every request: the key, the limits, and the headers of every response."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from windowshift.backends.serve.allowance import Allowance
from windowshift.backends.serve.api_error import ApiError
from windowshift.backends.serve.limits import ServerLimits
from windowshift.backends.serve.state import new_id

UPLOADS = "/v1/files"
OPEN = "/health"
LINGER_SECONDS = 2.0
_KNOWN = "windowshift.has_key"


def has_key(scope: Mapping[str, Any]) -> bool:
    """Whether a request came with the key."""
    return bool(scope.get(_KNOWN))


class RequestGate:
    """ASGI middleware that lets no request in without the key, and no body in that is too large or too slow.

    A request is refused from its head alone where that is possible: a body that is announced as too
    large is not read. One that announces no size is counted while it arrives.

    Args:
        app: what is behind the gate.
        key: the bearer key.
        limits: the server's.
    """

    def __init__(self, app: ASGIApp, *, key: str, limits: ServerLimits) -> None:
        self._app, self._key, self._limits = app, key.encode(), limits
        self._allowance = Allowance(limits.rpm)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        body = _Body(scope, receive, self._limits)
        extra = {"x-request-id": new_id("req_", 32), "openai-version": "2020-10-01"}

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(extra)
                headers["openai-processing-ms"] = str(round((time.perf_counter() - started) * 1000))
                if not body.whole:
                    headers["connection"] = "close"
            elif not message.get("more_body", False) and not body.whole:
                await send({**message, "more_body": True})
                await body.throw_away()
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        try:
            if scope["path"] != OPEN:
                self._check_key(Headers(scope=scope))
                scope[_KNOWN] = True
                extra.update(self._allowance.take())
            body.check_head()
        except ApiError as error:
            await error.response()(scope, receive, answer)
            return
        await self._app(scope, body.receive, answer)

    def _check_key(self, headers: Headers) -> None:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            raise ApiError(
                401,
                "you did not give an API key: send it as 'Authorization: Bearer KEY'",
                code="missing_api_key",
                headers={"www-authenticate": "Bearer"},
            )
        if not hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), self._key):
            raise ApiError(
                401,
                "the API key is not the one that this server was started with",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )


class _Body:
    """A request's body as it arrives, within the limits of size and time."""

    def __init__(self, scope: Scope, receive: Receive, limits: ServerLimits) -> None:
        self._scope, self._receive, self._limits = scope, receive, limits
        upload = scope["path"].rstrip("/") == UPLOADS
        self._most = limits.upload_bytes if upload else limits.body_bytes
        self._size = 0
        self._started = time.monotonic()
        headers = Headers(scope=scope)
        self.whole = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers

    def check_head(self) -> None:
        """Look at the size that the head announces.

        Raises:
            ApiError: it is too large.
        """
        announced = Headers(scope=self._scope).get("content-length", "0")
        if not announced.isdigit() or int(announced[:20]) > self._most:
            raise self._too_large()

    async def receive(self) -> Message:
        """The next part.

        Raises:
            ApiError: the body is larger than allowed, or takes longer.
        """
        if self.whole:
            return await self._receive()  # an empty body, or the client's going away
        patience = self._started + self._limits.body_seconds + self._size / self._limits.body_rate - time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), max(patience, 0.001))
        except TimeoutError as error:
            raise ApiError(408, "the request's body did not arrive in time: send it faster") from error
        if message["type"] == "http.request":
            self._size += len(message.get("body", b""))
            self.whole = not message.get("more_body", False)
            if self._size > self._most:
                raise self._too_large()
        return message

    async def throw_away(self) -> None:
        """Read on for a moment after the answer, so that the client gets to read it.

        Closing at once would make the client's machine drop the answer while it still sends.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while (message := await self._receive())["type"] == "http.request" and message.get("more_body", False):
                    pass

    def _too_large(self) -> ApiError:
        return ApiError(
            413,
            f"the request is larger than the {self._most} bytes that this server takes here",
            code="request_too_large",
        )
