"""Requests that no backend can answer, and completions that were not made."""

from __future__ import annotations

from windowshift.core.contract.errors import WindowshiftError
from windowshift.core.contract.full_disk import FULL_DISK, is_full_disk
from windowshift.core.contract.generation import Completion, GenerateRequest


def nonsense(request: GenerateRequest) -> str | None:
    """What makes no sense in a request, whoever is asked; None where nothing does."""
    sampling = request.sampling
    if not request.messages:
        return "the request has no messages"
    if sampling.max_tokens < 1:
        return f"max_tokens must be at least 1, got {sampling.max_tokens}"
    if not 0 <= sampling.temperature < float("inf"):
        return f"temperature must be a number of at least 0, got {sampling.temperature}"
    if not 0 < sampling.top_p <= 1:
        return f"top_p must be above 0 and at most 1, got {sampling.top_p}"
    return None


def unanswered(
    request: GenerateRequest,
    reasoning: str,
    reasoning_tokens: int,
    *,
    cut: bool,
    prompt_tokens: int = 0,
    usd: float | None = None,
) -> Completion:
    """The completion of a model that thought and gave no answer: missing, with the reason.

    Args:
        request: what was asked.
        reasoning: what it thought, as far as it is shown.
        reasoning_tokens: how many tokens that took; 0 where nobody counted.
        cut: whether `max_tokens` ended it; otherwise the model ended by itself.
        prompt_tokens: tokens of the prompt.
        usd: what it cost; None where nothing is priced.
    """
    count = f"its {reasoning_tokens} tokens" if reasoning_tokens else "its tokens"
    spent = f"the model spent {count} on reasoning before it answered: raise max_tokens"
    error = spent if cut else "the model ended after its reasoning, without an answer"
    return Completion(
        request.key,
        "",
        "failed",
        0,
        prompt_tokens=prompt_tokens,
        error=error,
        usd=usd,
        reasoning=reasoning,
        reasoning_tokens=reasoning_tokens,
    )


def failed(request: GenerateRequest, error: str, prompt_tokens: int = 0, *, usd: float | None = None) -> Completion:
    """The completion of a request that could not be answered; `usd` is what it cost nevertheless."""
    return Completion(request.key, "", "failed", 0, prompt_tokens=prompt_tokens, error=error, usd=usd)


def library_reason(error: BaseException) -> str:
    """What a library's error says, in one line; with its kind, where that is not one that speaks for itself."""
    if is_full_disk(error):
        return FULL_DISK
    text = (str(error).strip().splitlines() or [""])[0]
    if text and isinstance(error, RuntimeError | MemoryError | OSError | WindowshiftError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
