"""Answers: a chat completion as the API has it, checked and turned into a `Completion`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from windowshift.backends.openai.faults import BrokenAnswerError
from windowshift.core.contract.generation import Completion, GenerateRequest, TokenLogprob
from windowshift.core.contract.prices import Price

if TYPE_CHECKING:
    from openai.types.chat.chat_completion import Choice

_REFUSED = {
    "content_filter": "the server's content filter cut the completion",
    "tool_calls": "the model called a tool instead of answering",
    "function_call": "the model called a function instead of answering",
}


def read_answer(request: GenerateRequest, answer: object, price: Price | None, *, batch: bool = False) -> Completion:
    """Turn the API's answer into a completion.

    Args:
        request: what was asked.
        answer: a `ChatCompletion` of the SDK, which checks no types, or the body of one as a mapping.
        price: what the model costs; None: it is not known.
        batch: whether it came through the Batch API.

    Raises:
        BrokenAnswerError: something that a chat completion has is missing.
    """
    from openai.types.chat import ChatCompletion

    if isinstance(answer, Mapping):
        answer = ChatCompletion.construct(**answer)
    if not isinstance(answer, ChatCompletion):
        raise BrokenAnswerError("it is no chat completion")
    choices = getattr(answer, "choices", None)
    if not isinstance(choices, list) or not choices:
        raise BrokenAnswerError("it has no choices")
    choice = choices[0]
    message = getattr(choice, "message", None)
    text = getattr(message, "content", None)
    if message is None or not isinstance(text, str | None):
        raise BrokenAnswerError("its message has no text")
    prompt_tokens, tokens, reasoning = _usage(answer)
    usd = None if price is None else price.completion(prompt_tokens, tokens, batch=batch)
    finish = getattr(choice, "finish_reason", None)
    if finish not in ("stop", "length"):
        problem = _REFUSED.get(str(finish), f"the completion ended with '{finish}'")
        return Completion(request.key, "", "failed", 0, prompt_tokens, error=problem, usd=usd)
    # A refusal is what the model said, in a field of its own.
    said = text if text is not None else getattr(message, "refusal", None)
    tokens_said = _logprobs(choice)
    return Completion(
        key=request.key,
        text=said if isinstance(said, str) else "",
        finish="length" if finish == "length" else "stop",
        tokens=max(0, tokens - reasoning),
        prompt_tokens=prompt_tokens,
        # Of the base model: what a fine-tune thinks of its own words is another measure.
        logprob=None if tokens_said is None or request.model.adapter else sum(one.logprob for one in tokens_said),
        token_logprobs=None if request.logprobs is None else tokens_said,
        usd=usd,
    )


def _usage(answer: Any) -> tuple[int, int, int]:
    """Prompt tokens, completion tokens, and those of the latter that were thought and not said."""
    usage = getattr(answer, "usage", None)
    found = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
    if not all(isinstance(value, int) and value >= 0 for value in found):
        raise BrokenAnswerError("it does not say how many tokens it used")
    reasoning = getattr(getattr(usage, "completion_tokens_details", None), "reasoning_tokens", None)
    prompt, completion = (int(value) for value in found if value is not None)
    return prompt, completion, reasoning if isinstance(reasoning, int) else 0


def _logprobs(choice: Choice) -> tuple[TokenLogprob, ...] | None:
    """The completion's tokens with their log-probabilities; None: the server sent none."""
    content = getattr(getattr(choice, "logprobs", None), "content", None)
    if not isinstance(content, list):
        return None
    found = []
    for token in content:
        if not isinstance(getattr(token, "logprob", None), int | float):
            raise BrokenAnswerError("a token has no logprob")
        top = tuple((str(one.token), float(one.logprob)) for one in getattr(token, "top_logprobs", None) or ())
        found.append(TokenLogprob(str(token.token), float(token.logprob), top))
    return tuple(found)
