"""Prompts: where a setting's instructions come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, runtime_checkable

from windowshift.core.contract.generation import Message
from windowshift.core.contract.payload import NO_PAYLOAD, Payload


@dataclass(frozen=True)
class Prompt:
    """One instruction: `id` is unique in its source.

    `text` is the instruction itself, the user message that a prefix goes to; `turns` is what was said before
    it (system, user and assistant messages), nothing for a prompt of one message. `payload` is what scorers
    and conditions need to know of it, as JSON: tests, labels, the user's claim, the language. It is no part
    of what the model sees, unless a condition puts it there.

    Raises:
        ValueError: the payload is not JSON.
    """

    id: str
    text: str
    payload: Mapping[str, Any] = NO_PAYLOAD
    turns: tuple[Message, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.payload, Payload):
            object.__setattr__(self, "payload", Payload(self.payload))
        object.__setattr__(self, "turns", tuple(self.turns))

    @property
    def messages(self) -> tuple[Message, ...]:
        """The chat without a push: `turns`, then `text` as the user's."""
        return (*self.turns, Message("user", self.text))

    @property
    def payload_json(self) -> str | None:
        """The payload as canonical JSON; None for an empty one."""
        return Payload(self.payload).json if self.payload else None

    @property
    def turns_json(self) -> str | None:
        """The turns as a JSON list of [role, content]; None where there are none."""
        turns = [[turn.role, turn.content] for turn in self.turns]
        return json.dumps(turns, separators=(",", ":"), ensure_ascii=False) if turns else None

    @cached_property
    def digest(self) -> str:
        """A hash of id and text, and of payload and turns where there are any."""
        parts = [self.id, self.text]
        if self.payload or self.turns:
            parts += [self.payload_json or "", self.turns_json or ""]
        return _hash(parts)


@runtime_checkable
class PromptMaker(Protocol):
    """A setting that makes its prompts of rows: the problem with its tests, the review with its instruction."""

    def prepare(self, prompt: Prompt) -> Prompt:
        """The prompt as it is asked.

        Args:
            prompt: as it was read: id and text of the row, and all its further columns as the payload.

        Raises:
            ValueError: what is wrong with the row; the file and the line are put in front.
            KeyError: a column is missing; it is named.
        """
        ...


Use = Literal["data", "evaluation"]
USES: tuple[Use, ...] = ("data", "evaluation")


@runtime_checkable
class PromptSorter(Protocol):
    """A setting whose D is made of other prompts than those that models are evaluated on."""

    def uses(self, prompt: Prompt) -> Collection[Use]:
        """What a prompt, as `prepare` made it, may be used for; nothing leaves it out."""
        ...


@runtime_checkable
class PromptBringer(Protocol):
    """A setting with prompts of its own, which every evaluation begins with, whatever the source."""

    def brought(self) -> Sequence[Prompt]:
        """The prompts; where a spec has fewer prompts evaluated, the first of them."""
        ...


def stored_prompt(key: str, text: str, payload: str | None, turns: str | None) -> Prompt:
    """A prompt as the store has it: payload and turns as JSON, None where there are none."""
    if not payload and not turns:
        return Prompt(key, text)
    said = tuple(Message(role, content) for role, content in json.loads(turns)) if turns else ()
    return Prompt(key, text, Payload.parse(payload), said)


def set_digest(prompts: Sequence[Prompt]) -> str:
    """A hash of prompts in their order."""
    return _hash([prompt.digest for prompt in prompts])


def _hash(parts: list[str]) -> str:
    # JSON keeps the parts apart, and its ASCII escapes take lone surrogates too.
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
