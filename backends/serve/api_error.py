"""Errors in the API's own format: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from windowshift.backends.serve.request_log import entry
from windowshift.core.contract.errors import WindowshiftError
from windowshift.core.contract.full_disk import is_full_disk

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """A refusal or a failure that goes to the client.

    Args:
        status: the HTTP status.
        message: one sentence: what is wrong, where, and what to do.
        param: the parameter of the request that is wrong, where there is one.
        code: a word for programs, such as ``model_not_found``.
        headers: further headers of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    @property
    def kind(self) -> str:
        """The API's `type` of this error."""
        return _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")

    def body(self) -> dict[str, Any]:
        """The response body."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The response."""
        return JSONResponse(self.body(), self.status, headers=self.headers)


def missing(what: str, name: str, *, param: str | None = None, status: int = 404) -> ApiError:
    """The error for something that is not there; `what` is ``file``, ``model``, ..."""
    code = "model_not_found" if what == "model" else None
    return ApiError(status, f"there is no {what} '{shown(name)}' on this server", param=param, code=code)


def refuse_full(what: str, count: int, most: int) -> None:
    """Look at a queue before something is put into it.

    Raises:
        ApiError: it is full.
    """
    if count >= most:
        raise ApiError(
            429,
            f"{count} {what} are waiting or in work, of at most {most}: wait for one to end, or cancel one",
            code="queue_full",
            headers={"retry-after": "60"},
        )


def shown(text: str, width: int = 120) -> str:
    """Client text as an error may repeat it: printable, and not long."""
    plain = "".join(character if character.isprintable() else "?" for character in text[: width + 1])
    return plain if len(plain) <= width else f"{plain[:width]}..."


def full_disk() -> ApiError:
    """The error for what could not be written."""
    return ApiError(
        507, "the disk of this server is full: free some space on it and send the request again", code="disk_full"
    )


async def answer_error(request: Request, error: Exception) -> Response:
    """Turn what an endpoint or the router raised into the API's format.

    Raises:
        Exception: the error itself, where it is none that anybody expected.
    """
    if isinstance(error, OSError | sqlite3.Error):
        if not is_full_disk(error, request.app.state.service.folder):
            raise error
        error = full_disk()
    if isinstance(error, WindowshiftError):
        error = ApiError(500, str(error))
    if isinstance(error, ApiError):
        entry(request.scope).refused(error)
        return error.response()
    if isinstance(error, HTTPException):
        message = error.detail
        if error.status_code in (404, 405):
            message = f"invalid URL or method ({request.method} {shown(request.url.path)})"
        return ApiError(error.status_code, message, headers=error.headers).response()
    raise error


async def answer_unexpected(request: Request, error: Exception) -> Response:  # noqa: ARG001  # as handlers are called
    """The answer where something went wrong that the server's own output is about."""
    return ApiError(500, "the server failed on this request; its own output says why").response()
