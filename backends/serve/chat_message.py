"""Messages as the API writes them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from windowshift.core.contract.generation import ChatRole, Message

ROLES: dict[str, ChatRole] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
Text = Annotated[str, StringConstraints(strict=True)]


class TextPart(BaseModel):
    """A part of a message's content; text is the only kind that a local model takes."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: Text


class ChatMessage(BaseModel):
    """One turn. ``developer`` is the newer name of ``system``.

    What an assistant thought before its answer may be sent back; chats go on without it, as chat templates have it.
    """

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]
    refusal: None = None  # what an assistant message of the API carries when it is sent back
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None
    reasoning_content: Text | None = None
    reasoning: Text | None = None

    def message(self) -> Message:
        """As backends take it."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message(ROLES[self.role], content)


class TrainingMessage(ChatMessage):
    """A turn of a training example; an assistant's is learned unless its weight is 0."""

    weight: Literal[0, 1] | None = None
