"""A request for a response, the API's newer form of a chat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from windowshift.backends.serve.api_error import ApiError
from windowshift.backends.serve.chat_message import ROLES, Text
from windowshift.backends.serve.limits import ServerLimits
from windowshift.backends.serve.response_writer import ResponseWriter
from windowshift.backends.serve.sampling_request import SamplingRequest, Tokens
from windowshift.core.contract.generation import GenerateRequest, Message

LOGPROBS = "message.output_text.logprobs"


class _Part(BaseModel):
    """A part of a message's content; text is the only kind that a local model takes."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["input_text", "output_text", "text"]
    text: Text
    annotations: list[Any] | None = None  # what an answer of the API carries when it is sent back
    logprobs: list[Any] | None = None


class _InputMessage(BaseModel):
    """One turn: written by the caller, or an answer that is sent back."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[_Part]
    id: str | None = None
    status: str | None = None
    phase: str | None = None

    def message(self) -> Message:
        """As backends take it."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message(ROLES[self.role], content)


class _Thought(BaseModel):
    """What the model thought before an answer that is sent back. Chats go on without it, as chat templates have it."""

    model_config = ConfigDict(extra="allow")

    type: Literal["reasoning"]


def _kind(item: Any) -> str:
    found = item.get("type") if isinstance(item, dict) else getattr(item, "type", None)
    return str(found or "message")


_Item = Annotated[
    Annotated[_InputMessage, Tag("message")] | Annotated[_Thought, Tag("reasoning")], Discriminator(_kind)
]
_said = BeforeValidator(lambda value: [{"role": "user", "content": value}] if isinstance(value, str) else value)


class _Reasoning(BaseModel):
    """How to think; a local model does as its template has it."""

    model_config = ConfigDict(extra="forbid")

    effort: Literal["none"] | None = None
    summary: str | None = None  # what was thought is shown whole
    generate_summary: str | None = None
    mode: Literal["standard"] | None = None
    context: str | None = None


class _Format(BaseModel):
    """The format of an answer."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]


class _TextConfig(BaseModel):
    """How to write; plain text is the only format."""

    model_config = ConfigDict(extra="forbid")

    format: _Format | None = None
    verbosity: None = None


class ResponseRequest(SamplingRequest):
    """The body of ``POST /v1/responses``.

    `seed` and `stop` are not among the hosted API's parameters; they do here what they do for chats. Responses are not
    kept: what a request does not say, the model does not know.
    """

    input: Annotated[list[_Item], _said, Field(min_length=1)]
    instructions: Text | None = None
    max_output_tokens: Tokens | None = None
    include: list[str] | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    reasoning: _Reasoning | None = None
    text: _TextConfig | None = None

    # Accepted: these have no influence on the answer.
    max_tool_calls: int | None = None

    access_programs: Any = None
    background: bool | None = None
    context_management: Any = None
    conversation: Any = None
    image: Any = None
    moderation: Any = None
    previous_response_id: str | None = None
    prompt: Any = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    truncation: str | None = None

    PROMPT: ClassVar[str] = "input"
    LENGTHS: ClassVar[tuple[str, ...]] = ("max_output_tokens",)
    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {
        "access_programs": (),
        "background": (False,),
        "context_management": ([],),
        "image": (),
        "moderation": (),
        "prompt": (),
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "truncation": ("disabled",),
    }

    @property
    def alternatives(self) -> int | None:
        """How many alternatives to name at each token; None where no log-probabilities are wanted."""
        return (self.top_logprobs or 0) if self.shows_logprobs else None

    @property
    def shows_logprobs(self) -> bool:
        """Whether log-probabilities are wanted."""
        return LOGPROBS in (self.include or ())

    def refuse(self, limits: ServerLimits) -> None:
        """Check what the types cannot say.

        Raises:
            ApiError: something is asked for that this server does not do, or that contradicts itself.
        """
        for name in ("previous_response_id", "conversation"):
            if getattr(self, name) is not None:
                raise ApiError(
                    400,
                    f"this server keeps no responses, so there is nothing that '{name}' could name: send the whole "
                    "conversation as 'input'",
                    param=name,
                    code="unsupported_parameter",
                )
        super().refuse(limits)
        if self.top_logprobs is not None and not self.shows_logprobs:
            raise ApiError(400, f"top_logprobs needs include: ['{LOGPROBS}']", param="top_logprobs")

    def prompts(self, first: GenerateRequest) -> Sequence[GenerateRequest]:
        """The conversation, after the instructions."""
        said = [item.message() for item in self.input if isinstance(item, _InputMessage)]
        if not said:
            raise ApiError(400, "input has no message", param="input")
        before = [] if self.instructions is None else [Message("system", self.instructions)]
        return [replace(first, messages=(*before, *said))]

    def writer(self, fingerprint: str) -> ResponseWriter:
        """What writes the answer as a response, or as events of one."""
        echoed = {
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "max_tool_calls": self.max_tool_calls,
            "metadata": self.metadata or {},
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "top_logprobs": self.top_logprobs or 0,
            "top_p": 1.0 if self.top_p is None else self.top_p,
            "user": self.user,
            "safety_identifier": self.safety_identifier,
            "prompt_cache_key": self.prompt_cache_key,
        }
        return ResponseWriter(self.model, fingerprint, echoed)
