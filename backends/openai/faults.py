"""Faults: what went wrong with a request, and what can be done about it."""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from windowshift.core.contract.errors import BackendError

Remedy = Literal["again", "wait", "refused", "stop"]
_LONGEST_WAIT = 3600.0
_SPENT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "account_deactivated")


class BrokenAnswerError(Exception):
    """A server answered with something that is no answer."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A failed request.

    Attributes:
        remedy: ``again`` (the server or the line failed: repeat it), ``wait`` (too many requests, or
            nobody there: repeat it later), ``refused`` (this request will never be answered) or
            ``stop`` (no request will: a wrong key, an empty account).
        sentence: what happened.
        seconds: how long the server asked to wait, where it did.
        maybe_done: whether the server may have done, and charged, what was asked.
        status: the HTTP status, where there was one.
        code: the API's own error code, where there was one.
        param: the parameter that the API complained of, where it named one.
    """

    remedy: Remedy
    sentence: str
    seconds: float | None = None
    maybe_done: bool = False
    status: int | None = None
    code: str | None = None
    param: str | None = None


def fault_of(error: Exception) -> Fault:
    """Tell what an exception of the SDK means.

    Raises:
        Exception: `error` itself, where it is none that a server or a line can cause.
    """
    import httpx2
    import openai

    if isinstance(error, openai.APIStatusError):
        return _of_status(error.status_code, error.response.headers, error.body, error.message)
    if isinstance(error, openai.APITimeoutError):
        if isinstance(error.__cause__, httpx2.ConnectTimeout | httpx2.PoolTimeout):
            return Fault("wait", "the server cannot be reached (timeout)")
        return Fault("again", "the server did not answer in time", maybe_done=True)
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__
        if isinstance(cause, httpx2.ConnectError):
            return Fault("wait", f"the server cannot be reached ({_short(cause)})")
        return Fault("again", f"the connection broke ({_short(cause or error)})", maybe_done=True)
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return Fault("wait", f"the server cannot be reached ({_short(error)})")
    if isinstance(error, httpx2.HTTPError | httpx2.StreamError):
        return Fault("again", f"the connection broke ({_short(error)})", maybe_done=True)
    if isinstance(error, BrokenAnswerError | json.JSONDecodeError | openai.APIResponseValidationError):
        reason = str(error) if isinstance(error, BrokenAnswerError) else "not JSON, or cut short"
        return Fault("again", f"the server's answer was broken ({reason})", maybe_done=True)
    if isinstance(error, UnicodeError):
        return Fault("again", "the server's answer was broken (not UTF-8)", maybe_done=True)
    raise error


def _of_status(status: int, headers: Mapping[str, str], body: object, message: str) -> Fault:
    details: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    if isinstance(inner := details.get("error"), Mapping):
        details = inner
    said = str(details.get("message") or details.get("detail") or "").strip() or message.strip()
    said = " ".join(said.split())[:400] or f"status {status}"
    code = details.get("code") or details.get("type")
    fault = Fault(
        "refused",
        said,
        wait_asked(headers),
        status=status,
        code=None if code is None else str(code),
        param=None if details.get("param") is None else str(details["param"]),
    )
    if status == 401:
        return _changed(fault, "stop", f"the server refused the key ({said})")
    if status == 402 or fault.code in _SPENT:
        return _changed(fault, "stop", f"the account cannot pay ({said})")
    if status == 429:
        return _changed(fault, "wait", f"too many requests ({said})")
    if status in (502, 503):  # a proxy found nobody behind it, or the server is still loading
        return _changed(fault, "again", f"the server is not ready ({status}: {said})", maybe_done=status == 502)
    if status in (408, 409) or status >= 500:
        return _changed(fault, "again", f"the server failed ({status}: {said})", maybe_done=status != 409)
    return fault


def _changed(fault: Fault, remedy: Remedy, sentence: str, *, maybe_done: bool = False) -> Fault:
    return Fault(remedy, sentence, fault.seconds, maybe_done, fault.status, fault.code, fault.param)


def wait_asked(headers: Mapping[str, str]) -> float | None:
    """Seconds that ``retry-after-ms`` or ``retry-after`` (seconds or a date) asks to wait; None: neither does."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return min(seconds, _LONGEST_WAIT)
    when = email.utils.parsedate_tz(headers.get("retry-after", ""))
    if when is None:
        return None
    return min(max(0.0, email.utils.mktime_tz(when) - time.time()), _LONGEST_WAIT)


def _short(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__


class ServiceError(BackendError):
    """A request failed for good; `fault` says how."""

    def __init__(self, sentence: str, fault: Fault) -> None:
        super().__init__(sentence)
        self.fault = fault
