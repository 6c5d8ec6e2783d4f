"""What the SDK's errors mean: whether a job can go on, and the sentence that people read."""

from __future__ import annotations

import re
from concurrent.futures import CancelledError

from windowshift.backends.openai.faults import reason_in
from windowshift.backends.shared.faults import BrokenAnswerError, Fault, broken
from windowshift.core.contract.full_disk import is_full_disk

_FAILED = re.compile(r"^Request failed: (?P<said>.*) for self\.request_id=.*$", re.DOTALL)
_LOST = ("not loaded", "session", "model not found", "training run", "poisoned", "maximum number of lora adapters")


def fault_of(error: BaseException) -> Fault:
    """Tell what an exception of the SDK means.

    ``again``: the server or the line failed, or the server has lost what it held in memory; a job can go on from
    its last state. ``refused``: this will never be answered. ``stop``: nothing will.

    Raises:
        BaseException: `error` itself, where it is none that a server or a line can cause.
    """
    if isinstance(error, BrokenAnswerError):
        return _broken(error)
    import httpx
    import tinker
    from tinker.lib.retryable_exception import RetryableException

    if isinstance(error, tinker.APIStatusError):
        return _of_status(error.status_code, error.body, error.message)
    if isinstance(error, tinker.RequestFailedError):
        found = _FAILED.match(error.message)
        said = _line(found["said"] if found else error.message)
        lost = any(sign in said.lower() for sign in _LOST)
        return Fault("again" if lost or str(error.category).lower() != "user" else "refused", said)
    if isinstance(error, tinker.APIConnectionError | httpx.TransportError | TimeoutError | CancelledError):
        return Fault("again", f"the server cannot be reached ({_line(str(error)) or type(error).__name__})")
    if isinstance(error, RetryableException):
        return Fault("again", _line(str(error)))
    if isinstance(error, tinker.APIResponseValidationError):
        return _broken(error)
    if isinstance(error, tinker.TinkerError):  # of the key
        return Fault("stop", _line(str(error)))
    # The SDK says these with plain exceptions.
    if isinstance(error, ValueError) and str(error).startswith(("Error retrieving result", "Proto deserialization")):
        return Fault("again", _line(str(error)))
    if isinstance(error, RuntimeError) and any(sign in str(error) for sign in ("poisoned", "closed")):
        return Fault("again", _line(str(error)))
    if isinstance(error, Exception) and not is_full_disk(
        error
    ):  # whatever it is, it was raised while an answer was read
        return _broken(error)
    raise error


def _broken(error: Exception) -> Fault:
    return Fault("again", f"the server's answer was broken ({broken(error)})", maybe_done=True, broken=True)


def _of_status(status: int, body: object, message: str) -> Fault:
    sentence = _line(reason_in(body)) or _line(message) or f"status {status}"
    if status in (401, 403):
        return Fault("stop", f"the server refused the key ({sentence})", status=status)
    if status == 402:
        return Fault("stop", f"the account cannot pay ({sentence})", status=status)
    if status == 429:
        return Fault("wait", f"too many requests ({sentence})", status=status)
    lost = status == 410 or (status == 404 and any(sign in sentence.lower() for sign in _LOST))
    if lost or status in (408, 409, 425) or status >= 500:
        return Fault("again", f"the server failed ({status}: {sentence})", status=status)
    return Fault("refused", sentence, status=status)


def _line(text: str) -> str:
    return " ".join(text.split())  # cut where it is shown, once keys are out of it
