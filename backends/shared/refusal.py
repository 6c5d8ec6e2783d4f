"""Requests that no backend can answer, and completions that were not made."""

from __future__ import annotations

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


def failed(request: GenerateRequest, error: str, prompt_tokens: int = 0, *, usd: float | None = None) -> Completion:
    """The completion of a request that could not be answered; `usd` is what it cost nevertheless."""
    return Completion(request.key, "", "failed", 0, prompt_tokens=prompt_tokens, error=error, usd=usd)
