"""Completions of a backend as the API's chat completion, whole or as a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from windowshift.backends.serve.api_error import ApiError
from windowshift.backends.serve.chat_request import ChatRequest, cut
from windowshift.backends.serve.state import new_id, now
from windowshift.core.contract.generation import Completion, TokenLogprob

LEAST = -9999.0  # what the API says of a token that cannot be: JSON has no infinity


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice: its text, cut at a stop sequence where there was one.

    `text` is None where the model thought until its tokens were spent; `reasoning` is what it thought, where it did.
    """

    index: int
    text: str | None
    finish: Literal["stop", "length"]
    logprobs: dict[str, Any] | None
    reasoning: str | None = None

    @property
    def thought(self) -> dict[str, Any]:
        """The reasoning as servers of open-weight models give it; nothing where there is none."""
        return {} if self.reasoning is None else {"reasoning_content": self.reasoning}


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """An answered request."""

    id: str
    created: int
    model: str
    fingerprint: str
    choices: tuple[Choice, ...]
    usage: dict[str, Any]

    @classmethod
    def of(cls, request: ChatRequest, completions: Sequence[Completion], fingerprint: str) -> ChatAnswer:
        """Put together what the backend gave.

        Raises:
            ApiError: a completion failed.
        """
        for completion in completions:
            if completion.finish == "failed" and not completion.unanswered:
                raise failure(completion.error or "the backend gave no reason")
        choices = tuple(_choice(request, index, each) for index, each in enumerate(completions))
        prompt, thought = completions[0].prompt_tokens, sum(each.reasoning_tokens for each in completions)
        drawn = thought + sum(each.tokens or 0 for each in completions)
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": drawn,
            "total_tokens": prompt + drawn,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": thought,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }
        return cls(new_id("chatcmpl-"), now(), request.model, fingerprint, choices, usage)

    def to_api(self) -> dict[str, Any]:
        """As the API's chat completion object."""
        choices: list[dict[str, Any]] = [
            {
                "index": choice.index,
                "message": {
                    "role": "assistant",
                    "content": choice.text,
                    "refusal": None,
                    "annotations": [],
                    **choice.thought,
                },
                "logprobs": choice.logprobs,
                "finish_reason": choice.finish,
            }
            for choice in self.choices
        ]
        return {**self._head("chat.completion"), "choices": choices, "usage": self.usage}

    def stream(self, include_usage: bool) -> Iterator[bytes]:
        """As server-sent events: for each choice its role, its whole text in one chunk, and its end."""
        head = self._head("chat.completion.chunk")
        if include_usage:
            head = {**head, "usage": None}
        for choice in self.choices:
            parts: tuple[tuple[dict[str, Any], dict[str, Any] | None, str | None], ...] = (
                ({"role": "assistant", "content": "", "refusal": None}, None, None),
                ({"content": choice.text, **choice.thought}, choice.logprobs, None),
                ({}, None, choice.finish),
            )
            for delta, logprobs, finish in parts:
                chunk = {"index": choice.index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
                yield _event({**head, "choices": [chunk]})
        if include_usage:
            yield _event({**head, "choices": [], "usage": self.usage})
        yield b"data: [DONE]\n\n"

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": self.fingerprint,
        }


def failure(reason: str) -> ApiError:
    """The error for a completion that failed, by what the local backend says of it."""
    if "do not fit" in reason:
        return ApiError(400, reason, param="messages", code="context_length_exceeded")
    if "chat template" in reason or "the prompt has no tokens" in reason:
        return ApiError(400, reason, param="messages")
    return ApiError(500, reason)


def _choice(request: ChatRequest, index: int, completion: Completion) -> Choice:
    if completion.unanswered:
        return Choice(index, None, "length", None, completion.reasoning)
    text, stopped = cut(completion.text, request.stops)
    finish: Literal["stop", "length"] = "length" if completion.finish == "length" and not stopped else "stop"
    tokens = completion.token_logprobs
    logprobs = None if tokens is None else {"content": _logprobs(tokens, text), "refusal": None}
    return Choice(index, text, finish, logprobs, completion.reasoning)


def _logprobs(tokens: Sequence[TokenLogprob], text: str) -> list[dict[str, Any]]:
    """The tokens of a text; those of what was cut off are left out."""
    found: list[dict[str, Any]] = []
    start = 0
    for each in tokens:
        if start >= len(text):
            break
        top = [_logprob(token, logprob) for token, logprob in each.top]
        found.append({**_logprob(each.token, each.logprob), "top_logprobs": top})
        start += len(each.token)
    return found


def _logprob(token: str, logprob: float) -> dict[str, Any]:
    # A part of a character has no text whose bytes could be told.
    octets = None if "\ufffd" in token else list(token.encode())
    return {"token": token, "logprob": max(logprob, LEAST), "bytes": octets}


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
