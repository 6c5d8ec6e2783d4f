"""A request for chat completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field

from windowshift.backends.serve.api_error import ApiError
from windowshift.backends.serve.chat_message import ChatMessage
from windowshift.backends.serve.chat_writer import ChatWriter
from windowshift.backends.serve.limits import ServerLimits
from windowshift.backends.serve.sampling_request import SamplingRequest, Tokens
from windowshift.core.contract.generation import GenerateRequest


class ChatRequest(SamplingRequest):
    """The body of ``POST /v1/chat/completions``."""

    messages: list[ChatMessage] = Field(min_length=1)
    n: int | None = Field(default=None, ge=1, le=128)
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)

    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    modalities: list[str] | None = None
    response_format: dict[str, Any] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    function_call: Any = None
    audio: Any = None
    prediction: Any = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    web_search_options: Any = None
    moderation: Any = None

    LENGTHS: ClassVar[tuple[str, ...]] = ("max_tokens", "max_completion_tokens")
    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {
        "frequency_penalty": (0,),
        "presence_penalty": (0,),
        "logit_bias": ({},),
        "modalities": (["text"],),
        "response_format": ({"type": "text"},),
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "functions": ([],),
        "function_call": ("none", "auto"),
        "audio": (),
        "prediction": (),
        "reasoning_effort": ("none",),
        "verbosity": (),
        "web_search_options": (),
        "moderation": (),
    }

    @property
    def choices(self) -> int:
        """How many completions are wanted."""
        return self.n or 1

    @property
    def alternatives(self) -> int | None:
        """How many alternatives to name at each token; None where no log-probabilities are wanted."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def refuse(self, limits: ServerLimits) -> None:
        """Check what the types cannot say.

        Raises:
            ApiError: something is asked for that this server does not do, or that contradicts itself.
        """
        super().refuse(limits)
        if self.top_logprobs is not None and not self.logprobs:
            raise ApiError(400, "top_logprobs needs logprobs: true", param="top_logprobs")

    def prompts(self, first: GenerateRequest) -> Sequence[GenerateRequest]:
        """The chat."""
        return [replace(first, messages=tuple(message.message() for message in self.messages))]

    def writer(self, fingerprint: str) -> ChatWriter:
        """What writes the answer as a chat completion, or as chunks of one."""
        return ChatWriter(self.model, fingerprint, usage=self.wants_usage)
