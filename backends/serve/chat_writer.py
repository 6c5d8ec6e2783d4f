"""Answers as chat completions, and as chunks of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from windowshift.backends.serve.api_error import ApiError
from windowshift.backends.serve.choice import Choice, Usage
from windowshift.backends.serve.draft import Delta
from windowshift.backends.serve.state import new_id, now
from windowshift.backends.serve.writer import DONE, event, logprobs, usage_to_api
from windowshift.core.contract.generation import TokenLogprob


class ChatWriter:
    """Writes a chat completion.

    What a model thought stands in `reasoning_content`, as servers of open-weight models give it.

    Args:
        model: its name as the client wrote it.
        fingerprint: of the base model.
        usage: whether a stream ends with the numbers of tokens.
    """

    def __init__(self, model: str, fingerprint: str, *, usage: bool) -> None:
        self._usage = usage
        self._head = {
            "id": new_id("chatcmpl-"),
            "created": now(),
            "model": model,
            "service_tier": "default",
            "system_fingerprint": fingerprint,
        }

    def whole(self, choices: Sequence[Choice], usage: Usage) -> dict[str, Any]:
        """The answer as a chat completion object."""
        written: list[dict[str, Any]] = [
            {
                "index": choice.index,
                "message": {
                    "role": "assistant",
                    "content": choice.text,
                    "refusal": None,
                    "annotations": [],
                    **({} if choice.reasoning is None else {"reasoning_content": choice.reasoning}),
                },
                "logprobs": _logprobs(choice.tokens),
                "finish_reason": choice.finish,
            }
            for choice in choices
        ]
        return {**self._head, "object": "chat.completion", "choices": written, "usage": usage_to_api(usage)}

    def begin(self, count: int) -> Iterator[bytes]:
        """A chunk with the role of each choice."""
        for index in range(count):
            yield self._chunk(index, {"role": "assistant", "content": "", "refusal": None})

    def more(self, delta: Delta) -> Iterator[bytes]:
        """A chunk for what was thought, and one for what was said."""
        if delta.reasoning:
            yield self._chunk(delta.index, {"reasoning_content": delta.reasoning})
        if delta.text:
            yield self._chunk(delta.index, {"content": delta.text}, delta.tokens)

    def end(self, choice: Choice) -> Iterator[bytes]:
        """A chunk with the reason of a choice's end."""
        yield self._chunk(choice.index, {}, finish=choice.finish)

    def finish(self, choices: Sequence[Choice], usage: Usage) -> Iterator[bytes]:  # noqa: ARG002  # of the protocol
        """The numbers of tokens, where they are wanted, and the end."""
        if self._usage:
            yield event({**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage_to_api(usage)})
        yield DONE

    def fail(self, error: ApiError) -> Iterator[bytes]:
        """The error, and the end."""
        yield event(error.body())
        yield DONE

    def _chunk(
        self, index: int, delta: dict[str, Any], tokens: Sequence[TokenLogprob] | None = None, finish: str | None = None
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": _logprobs(tokens), "finish_reason": finish}
        usage = {"usage": None} if self._usage else {}
        return event({**self._head, "object": "chat.completion.chunk", **usage, "choices": [choice]})


def _logprobs(tokens: Sequence[TokenLogprob] | None) -> dict[str, Any] | None:
    return None if tokens is None else {"content": logprobs(tokens), "refusal": None}
