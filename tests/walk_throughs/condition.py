"""A kind of condition: something was said before the prompt, in turns of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from windowshift.core.contract.conditions import Channel, Condition, Pushed
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Message
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.records import Arm


@dataclass(frozen=True, slots=True)
class SmallTalk:
    """A greeting and its answer before every prompt."""

    name: str
    greeting: str
    kind: str = "small_talk"
    arm: Arm = "prefix"

    def identity(self) -> dict[str, Any]:
        """What determines the chat; the name changes nothing."""
        return {"kind": self.kind, "greeting": self.greeting}

    def push(self, prompt: Prompt, index: int, channel: Channel) -> Pushed:
        """The prompt after the greeting; `index` would say which of several."""
        return Pushed(talk(self.identity(), None, prompt, channel))


def talk(identity: Mapping[str, Any], phrase: str | None, prompt: Prompt, channel: Channel) -> tuple[Message, ...]:
    """The chat again, of what a stored job has of the condition: the completion screen shows it."""
    return (Message("user", identity["greeting"]), Message("assistant", "Hello!"), *prompt.messages)


def read_small_talk(entry: Mapping[str, Any], where: str) -> list[Condition]:
    """Read ``{small_talk: Good morning., name: morning}``."""
    greeting = entry["small_talk"]
    if not isinstance(greeting, str) or not greeting.strip():
        raise SpecError(f"{where}: small_talk needs a text, e.g. {{small_talk: Good morning., name: morning}}")
    return [SmallTalk(str(entry.get("name") or "small_talk"), greeting)]
