"""Answers as text completions, and as chunks of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from windowshift.backends.serve.api_error import ApiError
from windowshift.backends.serve.choice import LEAST, Choice, Usage
from windowshift.backends.serve.draft import Delta
from windowshift.backends.serve.state import new_id, now
from windowshift.backends.serve.writer import DONE, event, usage_to_api
from windowshift.core.contract.generation import TokenLogprob


class TextCompletionWriter:
    """Writes a text completion.

    Args:
        model: its name as the client wrote it.
        fingerprint: of the base model.
        usage: whether a stream ends with the numbers of tokens.
        before: the prompt of each choice, where it is to stand before its text.
    """

    def __init__(self, model: str, fingerprint: str, *, usage: bool, before: Sequence[str] | None) -> None:
        self._usage, self._before = usage, before
        self._offsets: dict[int, int] = {}  # characters told of each choice
        self._head = {
            "id": new_id("cmpl-"),
            "object": "text_completion",
            "created": now(),
            "model": model,
            "system_fingerprint": fingerprint,
        }

    def whole(self, choices: Sequence[Choice], usage: Usage) -> dict[str, Any]:
        """The answer as a text completion object."""
        written = [
            self._choice(each.index, self._start(each.index) + (each.text or ""), each.tokens, each.finish)
            for each in choices
        ]
        return {**self._head, "choices": written, "usage": usage_to_api(usage)}

    def begin(self, count: int) -> Iterator[bytes]:
        """The prompts, where they are wanted."""
        if self._before is not None:
            for index in range(count):
                yield self._chunk(index, self._before[index])

    def more(self, delta: Delta) -> Iterator[bytes]:
        """A chunk for what was written."""
        if delta.text:
            yield self._chunk(delta.index, delta.text, delta.tokens)

    def end(self, choice: Choice) -> Iterator[bytes]:
        """A chunk with the reason of a choice's end."""
        yield self._chunk(choice.index, "", finish=choice.finish)

    def finish(self, choices: Sequence[Choice], usage: Usage) -> Iterator[bytes]:  # noqa: ARG002  # of the protocol
        """The numbers of tokens, where they are wanted, and the end."""
        if self._usage:
            yield event({**self._head, "choices": [], "usage": usage_to_api(usage)})
        yield DONE

    def fail(self, error: ApiError) -> Iterator[bytes]:
        """The error, and the end."""
        yield event(error.body())
        yield DONE

    def _start(self, index: int) -> str:
        return "" if self._before is None else self._before[index]

    def _chunk(
        self, index: int, text: str, tokens: Sequence[TokenLogprob] | None = None, finish: str | None = None
    ) -> bytes:
        usage = {"usage": None} if self._usage else {}
        return event({**self._head, **usage, "choices": [self._choice(index, text, tokens, finish)]})

    def _choice(
        self, index: int, text: str, tokens: Sequence[TokenLogprob] | None, finish: str | None
    ) -> dict[str, Any]:
        found: dict[str, Any] | None = None
        if tokens is not None:
            offset = self._offsets.get(index, 0)
            offsets: list[int] = []
            for each in tokens:
                offsets.append(offset)
                offset += len(each.token)
            self._offsets[index] = offset
            found = {
                "tokens": [each.token for each in tokens],
                "token_logprobs": [max(each.logprob, LEAST) for each in tokens],
                "top_logprobs": [{token: max(value, LEAST) for token, value in each.top} for each in tokens],
                "text_offset": offsets,
            }
        return {"index": index, "text": text, "logprobs": found, "finish_reason": finish}
