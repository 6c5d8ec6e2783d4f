"""Completions of a backend as choices, and what was drawn for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from windowshift.backends.serve.api_error import ApiError
from windowshift.core.contract.generation import Completion, TokenLogprob

LEAST = -9999.0  # what the API says of a token that cannot be: JSON has no infinity
ChoiceFinish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice: its text, cut at a stop sequence where there was one.

    `text` is None where the model thought until its tokens were spent; `reasoning` is what it thought, where it did.
    `tokens` are those of the text, where they were asked for.
    """

    index: int
    text: str | None
    finish: ChoiceFinish
    tokens: tuple[TokenLogprob, ...] | None
    reasoning: str | None = None

    @classmethod
    def of(cls, index: int, completion: Completion, stops: tuple[str, ...], param: str) -> Choice:
        """What a completion comes to; `param` is where the prompt stands in the request.

        Raises:
            ApiError: it failed.
        """
        if completion.unanswered:
            return cls(index, None, "length", None, completion.reasoning)
        if completion.finish == "failed":
            raise failure(completion.error or "the backend gave no reason", param)
        at = cut(completion.text, stops)
        text = completion.text[:at]
        finish: ChoiceFinish = "length" if completion.finish == "length" and at is None else "stop"
        tokens = completion.token_logprobs
        return cls(index, text, finish, None if tokens is None else within(tokens, len(text)), completion.reasoning)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a request: of its prompts, and all that was drawn, what was thought included."""

    prompt: int
    drawn: int
    thought: int

    @classmethod
    def of(cls, completions: Sequence[Completion], choices: int) -> Usage:
        """Those of a request with so many choices for each of its prompts, which count once."""
        thought = sum(each.reasoning_tokens for each in completions)
        drawn = thought + sum(each.tokens or 0 for each in completions)
        return cls(sum(each.prompt_tokens for each in completions[::choices]), drawn, thought)


def failure(reason: str, param: str) -> ApiError:
    """The error for a completion that failed, by what the local backend says of it."""
    if "do not fit" in reason:
        return ApiError(400, reason, param=param, code="context_length_exceeded")
    if any(words in reason for words in ("chat template", "the prompt has no tokens", "token ids")):
        return ApiError(400, reason, param=param)
    return ApiError(500, reason)


def cut(text: str, stops: tuple[str, ...]) -> int | None:
    """Where the first of the stop sequences begins; None where there is none."""
    return min((at for at in (text.find(stop) for stop in stops) if at >= 0), default=None)


def within(tokens: Sequence[TokenLogprob], size: int) -> tuple[TokenLogprob, ...]:
    """The tokens that begin within the first `size` characters of a text."""
    start = 0
    for count, each in enumerate(tokens):
        if start >= size:
            return tuple(tokens[:count])
        start += len(each.token)
    return tuple(tokens)
