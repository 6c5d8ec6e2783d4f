"""How an answer is written: whole, or as server-sent events while it is drawn."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from windowshift.backends.serve.api_error import ApiError
from windowshift.backends.serve.choice import LEAST, Choice, Usage
from windowshift.backends.serve.draft import Delta
from windowshift.core.contract.generation import TokenLogprob

DONE = b"data: [DONE]\n\n"


class AnswerWriter(Protocol):
    """Writes the answer to one request in the format of its route."""

    def whole(self, choices: Sequence[Choice], usage: Usage) -> dict[str, Any]:
        """The answer as one object."""
        ...

    def begin(self, count: int) -> Iterator[bytes]:
        """The first events of a stream of so many choices."""
        ...

    def more(self, delta: Delta) -> Iterator[bytes]:
        """Events for what was written of a choice."""
        ...

    def end(self, choice: Choice) -> Iterator[bytes]:
        """Events for a choice that has ended, all of which was told."""
        ...

    def finish(self, choices: Sequence[Choice], usage: Usage) -> Iterator[bytes]:
        """The last events of a stream."""
        ...

    def fail(self, error: ApiError) -> Iterator[bytes]:
        """The last events of a stream that fails in its middle."""
        ...


def event(value: dict[str, Any], name: str | None = None) -> bytes:
    """A server-sent event."""
    head = b"" if name is None else f"event: {name}\n".encode("ascii")
    return head + b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def logprobs(tokens: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """Tokens with their log-probabilities, as chats and responses have them."""
    return [
        {
            **_logprob(each.token, each.logprob),
            "top_logprobs": [_logprob(token, logprob) for token, logprob in each.top],
        }
        for each in tokens
    ]


def _logprob(token: str, logprob: float) -> dict[str, Any]:
    # A part of a character has no text whose bytes could be told.
    octets = None if "\ufffd" in token else list(token.encode())
    return {"token": token, "logprob": max(logprob, LEAST), "bytes": octets}


def usage_to_api(usage: Usage) -> dict[str, Any]:
    """As chats and text completions have it."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.drawn,
        "total_tokens": usage.prompt + usage.drawn,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.thought,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
