"""A request for chat completions, checked, and as a backend takes it."""

from __future__ import annotations

import hashlib
import secrets
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from windowshift.backends.serve.api_error import ApiError
from windowshift.backends.serve.chat_message import ChatMessage
from windowshift.backends.serve.job_request import Metadata
from windowshift.backends.serve.limits import Limits
from windowshift.core.contract.generation import GenerateRequest, Model, Sampling

_one = BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
_Stop = Annotated[str, StringConstraints(strict=True, min_length=1)]


class StreamOptions(BaseModel):
    """Options of ``stream: true``."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False
    include_obfuscation: bool | None = None


class ChatRequest(BaseModel):
    """The body of ``POST /v1/chat/completions``.

    What would change the answer and is not offered is refused by `refuse`; what only concerns the
    hosted service's accounts (`user`, `store`, `service_tier`, ...) is taken and has no effect.
    """

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, StringConstraints(strict=True, min_length=1)]
    messages: list[ChatMessage] = Field(min_length=1)
    n: int | None = Field(default=None, ge=1, le=128)
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    stop: Annotated[list[_Stop], _one, Field(max_length=4)] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    # Accepted: these have no influence on the answer.
    user: str | None = None
    metadata: Metadata | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None

    # Known, and not offered: fine where they ask for nothing.
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

    _NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {
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
    def count(self) -> int:
        """How many completions are wanted."""
        return self.n or 1

    @property
    def alternatives(self) -> int | None:
        """How many alternatives to name at each token; None where no log-probabilities are wanted."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def stops(self) -> tuple[str, ...]:
        """Where the answer is cut off; empty for nowhere."""
        return tuple(self.stop or ())

    def refuse(self, limits: Limits) -> None:
        """Check what the types cannot say.

        Raises:
            ApiError: something is asked for that this server does not do, or that contradicts itself.
        """
        for name, neutral in self._NEUTRAL.items():
            value = getattr(self, name)
            if value is not None and value not in neutral:
                raise ApiError(
                    400, f"this server does not offer '{name}': leave it out", param=name, code="unsupported_parameter"
                )
        wanted = [name for name in ("max_tokens", "max_completion_tokens") if getattr(self, name) is not None]
        if len(wanted) == 2 and self.max_tokens != self.max_completion_tokens:
            raise ApiError(400, "give max_tokens or max_completion_tokens, not both", param="max_tokens")
        if wanted and getattr(self, wanted[0]) > limits.max_tokens:
            raise ApiError(400, f"{wanted[0]} may be at most {limits.max_tokens}", param=wanted[0])
        if self.top_logprobs is not None and not self.logprobs:
            raise ApiError(400, "top_logprobs needs logprobs: true", param="top_logprobs")
        if self.stream_options is not None and not self.stream:
            raise ApiError(400, "stream_options needs stream: true", param="stream_options")

    def requests(self, model: Model, key: str, default_tokens: int) -> list[GenerateRequest]:
        """One request for each choice. The first has the seed as given, the others seeds made from it."""
        seed = secrets.randbits(62) if self.seed is None else self.seed
        sampling = Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            # The hosted API takes 0 for the most likely token alone.
            top_p=1.0 if self.top_p is None else max(self.top_p, 1e-9),
            max_tokens=self.max_completion_tokens or self.max_tokens or default_tokens,
        )
        messages = tuple(message.message() for message in self.messages)
        return [
            GenerateRequest(
                f"{key}/{index}", messages, model, sampling, choice_seed(seed, index), logprobs=self.alternatives
            )
            for index in range(self.count)
        ]


def choice_seed(seed: int, index: int) -> int:
    """The seed of a choice: the request's own for the first, so that `n` does not change it."""
    if index == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"choice:{seed}:{index}".encode()).digest()[:8], "big")


Finish = Literal["stop", "length"]


def cut(text: str, stops: tuple[str, ...]) -> tuple[str, bool]:
    """Cut a text before the first of the stop sequences; whether one was there."""
    ends = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    return (text[: min(ends)], True) if ends else (text, False)
