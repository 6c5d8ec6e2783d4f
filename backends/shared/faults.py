"""Faults: what can go wrong with a request to a server, and what can be done about it."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from windowshift.core.contract.errors import BackendError, UnaskedError

Remedy = Literal["again", "wait", "refused", "stop"]
LONGEST_WAIT = 3600.0


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
        broken: whether there was an answer, which is none.
    """

    remedy: Remedy
    sentence: str
    seconds: float | None = None
    maybe_done: bool = False
    status: int | None = None
    code: str | None = None
    param: str | None = None
    broken: bool = False


class ServiceError(BackendError):
    """A request failed for good; `fault` says how."""

    def __init__(self, sentence: str, fault: Fault) -> None:
        super().__init__(sentence)
        self.fault = fault


class NobodyThereError(ServiceError, UnaskedError):
    """A request failed for good because the server or the line did."""


def service_error(sentence: str, fault: Fault) -> ServiceError:
    """The error of a fault that nothing was done about."""
    away = fault.remedy in ("again", "wait") and fault.status is None and not fault.broken
    return (NobodyThereError if away else ServiceError)(sentence, fault)


def broken(error: BaseException) -> str:
    """What is wrong with an answer whose reading raised `error`; whatever was raised, the answer is to blame."""
    if isinstance(error, BrokenAnswerError):
        return str(error)
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeError):
        return "not UTF-8"
    if isinstance(error, MemoryError):
        return "it is too large to be read"
    if isinstance(error, ValueError):  # json's among them
        return "not JSON, or cut short"
    return f"it cannot be read: {type(error).__name__}"


def wait_asked(headers: Mapping[str, str]) -> float | None:
    """Seconds, at most an hour, that ``retry-after-ms`` or ``retry-after`` (seconds or a date) asks to wait.

    None: neither does, or what it says is no time.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if seconds >= 0:  # not a number is neither
            return min(seconds, LONGEST_WAIT)
    try:
        when = email.utils.parsedate_tz(headers.get("retry-after", ""))
        if when is None:
            return None
        return min(max(0.0, email.utils.mktime_tz(when) - time.time()), LONGEST_WAIT)
    except (ValueError, OverflowError, TypeError, IndexError):  # a year or a zone that there is not
        return None
