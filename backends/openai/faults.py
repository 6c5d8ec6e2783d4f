"""What the errors of OpenAI's SDK mean, and which of a server's words are worth keeping."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from windowshift.backends.shared.faults import BrokenAnswerError, Fault, Remedy, broken, wait_asked
from windowshift.backends.shared.said import load_json

_SPENT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "account_deactivated")
_MARKUP = re.compile(r"(?is)<(script|style|head)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>")
_TITLE = re.compile(r"(?is)<title[^>]*>(.*?)</title>")
_HTML = re.compile(r"(?is)^\s*(?:<!doctype\s+html|<html|<head|<body|<h\d)")
_READ = 65_536  # characters of a body that are looked at
_WORDS = ("message", "detail", "error_description", "error", "errors", "msg", "reason", "title")


def fault_of(error: Exception) -> Fault:
    """Tell what an exception means that came of asking a server, or of reading what it answered.

    Sentences are as the server wrote them: with keys, and as long as they are.
    """
    import httpx2
    import openai

    if isinstance(error, openai.APIStatusError):
        return _of_status(error.status_code, error.response.headers, _body(error), error.message)
    if isinstance(error, openai.APIConnectionError | httpx2.HTTPError | httpx2.StreamError):
        return _of_line(error)
    # Whatever else was raised was raised while the answer was read.
    return Fault("again", f"the server's answer was broken ({broken(error)})", maybe_done=True, broken=True)


def _of_line(error: Exception) -> Fault:
    import httpx2
    import openai

    cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
    if isinstance(cause, httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return Fault("wait", "the server cannot be reached (timeout)")
    if isinstance(error, openai.APITimeoutError) or isinstance(cause, httpx2.TimeoutException):
        return Fault("again", "the server did not answer in time", maybe_done=True)
    if isinstance(cause, httpx2.ConnectError):
        return Fault("wait", f"the server cannot be reached ({_short(cause)})")
    if cause is not None and not isinstance(cause, httpx2.HTTPError | httpx2.StreamError | OSError):
        return Fault("again", f"the server's answer was broken ({broken(cause)})", maybe_done=True, broken=True)
    return Fault("again", f"the connection broke ({_short(cause or error)})", maybe_done=True)


def _of_status(status: int, headers: Mapping[str, str], body: object, message: str) -> Fault:
    details: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    if isinstance(inner := details.get("error"), Mapping):
        details = inner
    said = reason_in(body) or message.strip() or f"status {status}"
    code = details.get("code") or details.get("type")
    fault = Fault(
        "refused",
        said,
        wait_asked(headers),
        status=status,
        code=str(code) if isinstance(code, str | int) else None,
        param=details["param"] if isinstance(details.get("param"), str) else None,
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


def reason_in(body: object) -> str:
    """A server's own reason, wherever in an error's body it stands: empty where it gives none.

    Servers that are like OpenAI's say it as ``{"error": {"message"}}``, as ``{"error": "..."}``, as ``{"detail":
    "..."}`` or ``{"detail": [{"msg", "loc"}]}``, as plain text, or as a page of HTML, of which the title or the first
    line of text is taken.
    """
    if isinstance(body, bytes):
        body = body.decode("utf-8", "replace")
    if isinstance(body, str):
        return _line_in(body[:_READ])
    if isinstance(body, list):
        return "; ".join(filter(None, (reason_in(one) for one in body[:5])))
    if isinstance(body, Mapping):
        for word in _WORDS:
            found = reason_in(body[word]) if word in body else ""
            if found:
                place = body.get("loc")
                where = ".".join(map(str, place[:8])) if word == "msg" and isinstance(place, list) else ""
                return f"{where}: {found}" if where else found
    return ""


def _line_in(text: str) -> str:
    if _HTML.match(text):
        import html

        title = _TITLE.search(text)
        plain = html.unescape(title[1] if title and title[1].strip() else _MARKUP.sub("\n", text))
    else:
        plain = text
    lines = (" ".join(line.split()) for line in plain.splitlines())
    return next((line for line in lines if line), "")


def _body(error: Any) -> object:
    """The whole body of an error: the SDK's own `body` is what stands under "error" alone."""
    try:
        text = str(error.response.text)
    except Exception:  # it was never read, or cannot be
        return error.body
    try:
        return load_json(text)
    except BrokenAnswerError:
        return text


def _changed(fault: Fault, remedy: Remedy, sentence: str, *, maybe_done: bool = False) -> Fault:
    return Fault(remedy, sentence, fault.seconds, maybe_done, fault.status, fault.code, fault.param)


def _short(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__
