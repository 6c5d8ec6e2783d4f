"""Answers as responses, and as the events of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from windowshift.backends.serve.api_error import ApiError
from windowshift.backends.serve.choice import Choice, Usage
from windowshift.backends.serve.draft import Delta
from windowshift.backends.serve.state import new_id, now
from windowshift.backends.serve.writer import event, logprobs
from windowshift.core.contract.generation import TokenLogprob

_CODES = {400: "invalid_prompt", 429: "rate_limit_exceeded"}


class ResponseWriter:
    """Writes a response: an item for what the model thought, where it did, and one for what it said.

    Args:
        model: its name as the client wrote it.
        fingerprint: of the base model; responses have no place for it.
        echoed: fields of the request that stand in the response.
    """

    def __init__(self, model: str, fingerprint: str, echoed: Mapping[str, Any]) -> None:
        del fingerprint
        self._head = {
            "id": new_id("resp_", 32),
            "object": "response",
            "created_at": now(),
            "model": model,
            "background": False,
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "truncation": "disabled",
            **echoed,
        }
        self._ids = {"reasoning": new_id("rs_", 32), "message": new_id("msg_", 32)}
        self._number = 0
        self._text = self._reasoning = ""  # as told
        self._tokens: list[TokenLogprob] = []
        self._open: str | None = None  # the item that is being told
        self._items = 0

    def whole(self, choices: Sequence[Choice], usage: Usage) -> dict[str, Any]:
        """The answer as a response object."""
        choice = choices[0]
        cut = choice.finish == "length"
        output: list[dict[str, Any]] = []
        if choice.reasoning is not None:
            status = "incomplete" if choice.text is None else "completed"
            output.append(self._item("reasoning", status, [self._part("reasoning", choice.reasoning)]))
        if choice.text is not None:
            part = self._part("message", choice.text, choice.tokens)
            output.append(self._item("message", "incomplete" if cut else "completed", [part]))
        return {
            **self._response("incomplete" if cut else "completed", output),
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "completed_at": None if cut else now(),
            "usage": {
                "input_tokens": usage.prompt,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": usage.drawn,
                "output_tokens_details": {"reasoning_tokens": usage.thought},
                "total_tokens": usage.prompt + usage.drawn,
            },
        }

    def begin(self, count: int) -> Iterator[bytes]:  # noqa: ARG002  # of the protocol: a response has one choice
        """That the response is there."""
        for name in ("response.created", "response.in_progress"):
            yield self._event(name, response=self._response("in_progress", []))

    def more(self, delta: Delta) -> Iterator[bytes]:
        """Events for what was thought, then for what was said."""
        if delta.reasoning:
            yield from self._into("reasoning")
            self._reasoning += delta.reasoning
            yield self._event("response.reasoning_text.delta", **self._place(), delta=delta.reasoning)
        if delta.text:
            yield from self._into("message")
            self._text += delta.text
            self._tokens += delta.tokens or ()
            shown = logprobs(delta.tokens or ())
            yield self._event("response.output_text.delta", **self._place(), delta=delta.text, logprobs=shown)

    def end(self, choice: Choice) -> Iterator[bytes]:
        """The ends of the items."""
        if choice.reasoning is not None and not self._items:
            yield from self._into("reasoning")
        if choice.text is not None:
            yield from self._into("message")
        yield from self._close("incomplete" if choice.finish == "length" else "completed")

    def finish(self, choices: Sequence[Choice], usage: Usage) -> Iterator[bytes]:
        """The whole response."""
        found = self.whole(choices, usage)
        yield self._event(f"response.{found['status']}", response=found)

    def fail(self, error: ApiError) -> Iterator[bytes]:
        """That the response failed."""
        reason = {"code": _CODES.get(error.status, "server_error"), "message": error.message}
        yield self._event("response.failed", response={**self._response("failed", []), "error": reason})

    def _into(self, kind: str) -> Iterator[bytes]:
        """Begin an item, where it is not begun."""
        if self._open == kind:
            return
        yield from self._close("completed")
        self._open = kind
        item = self._item(kind, "in_progress", [])
        yield self._event("response.output_item.added", output_index=self._items, item=item)
        yield self._event("response.content_part.added", **self._place(), part=self._part(kind, ""))

    def _close(self, status: str) -> Iterator[bytes]:
        """End the item that is being told."""
        kind = self._open
        if kind is None:
            return
        text = self._text if kind == "message" else self._reasoning
        part = self._part(kind, text, self._tokens)
        if kind == "message":
            shown = logprobs(self._tokens)
            yield self._event("response.output_text.done", **self._place(), text=text, logprobs=shown)
        else:
            yield self._event("response.reasoning_text.done", **self._place(), text=text)
        yield self._event("response.content_part.done", **self._place(), part=part)
        item = self._item(kind, status, [part])
        yield self._event("response.output_item.done", output_index=self._items, item=item)
        self._open = None
        self._items += 1

    def _place(self) -> dict[str, Any]:
        assert self._open is not None
        return {"item_id": self._ids[self._open], "output_index": self._items, "content_index": 0}

    def _item(self, kind: str, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        own: dict[str, Any] = {"role": "assistant"} if kind == "message" else {"summary": []}
        return {"id": self._ids[kind], "type": kind, "status": status, "content": content, **own}

    def _part(self, kind: str, text: str, tokens: Sequence[TokenLogprob] | None = ()) -> dict[str, Any]:
        if kind == "reasoning":
            return {"type": "reasoning_text", "text": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": _with_bytes(tokens or ())}

    def _response(self, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            **self._head,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "output": output,
            "usage": None,
        }

    def _event(self, kind: str, **fields: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        return event({"type": kind, "sequence_number": number, **fields}, kind)


def _with_bytes(tokens: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """As a response has them: its bytes are always a list."""
    found = logprobs(tokens)
    for each in found:
        for one in (each, *each["top_logprobs"]):
            one["bytes"] = one["bytes"] or []
    return found
