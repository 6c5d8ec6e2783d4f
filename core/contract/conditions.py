"""Conditions: how a model is pushed. One type, several kinds.

A kind is one class with `Condition`'s members and one entry in `windowshift.core.spec.condition_kinds`; one whose chat
is more than a phrase beside the prompt has an entry in `AGAIN` too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Protocol

import yaml

from windowshift.core.contract.assets import asset
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Message, Steering
from windowshift.core.contract.phrases import PROMPT, written
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.records import Arm
from windowshift.core.contract.texts import texts

Channel = Literal["user", "system"]
NO_PREFIX = "no_prefix"


@dataclass(frozen=True, slots=True)
class Pushed:
    """A prompt under a condition: the chat, the phrase that was used, and the steering."""

    messages: tuple[Message, ...]
    phrase: str | None = None
    steering: tuple[Steering, ...] = ()


class Condition(Protocol):
    """How a model is pushed: no condition, a prefix group, a steering dose, many shots, ..."""

    @property
    def name(self) -> str:
        """The label of the grid's row or column."""
        ...

    @property
    def kind(self) -> str:
        """What job hashes and screens call the kind."""
        ...

    @property
    def arm(self) -> Arm:
        """The arm a grid row or column under this condition belongs to."""
        ...

    def identity(self) -> dict[str, Any]:
        """Everything that determines what the condition does, as JSON, for job hashes."""
        ...

    def push(self, prompt: Prompt, index: int, channel: Channel) -> Pushed:
        """Put prompt number `index` of its set under the condition; its payload may say how."""
        ...


@dataclass(frozen=True, slots=True)
class NoPrefix:
    """The bare prompt."""

    name: str = NO_PREFIX
    kind: str = "none"
    arm: Arm = "prefix"

    def identity(self) -> dict[str, Any]:
        """As `Condition.identity`: nothing but the kind."""
        return {"kind": self.kind}

    def push(self, prompt: Prompt, index: int, channel: Channel) -> Pushed:  # noqa: ARG002 - the protocol's
        """The prompt's own messages."""
        return Pushed(prompt.messages)


def is_neutral(condition: Condition) -> bool:
    """Whether a condition pushes nowhere: such a one belongs to both arms."""
    return condition.identity() == NoPrefix().identity()


@dataclass(frozen=True, slots=True)
class PrefixGroup:
    """A named list of phrases; prompt number i takes phrase i mod n.

    In the user channel a phrase goes before the prompt, or into its `slot` (behind the words that every prompt of the
    setting begins with, on their line), or `after` the prompt, on a line of its own.
    """

    name: str
    phrases: tuple[str, ...]
    kind: str = "prefix"
    arm: Arm = "prefix"
    slot: str = ""
    after: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "phrases", texts(self.phrases, f"the phrases of prefix group '{self.name}'"))

    def identity(self) -> dict[str, Any]:
        """As `Condition.identity`: the phrases, and their place where it is not before; the name changes nothing."""
        return {"kind": self.kind, "phrases": list(self.phrases), **self.place}

    @property
    def place(self) -> dict[str, Any]:
        """`slot` or `after`, where a phrase does not go before the prompt."""
        return {"slot": self.slot} if self.slot else {"after": True} if self.after else {}

    def push(self, prompt: Prompt, index: int, channel: Channel) -> Pushed:
        """The phrase in front of the user message, in its slot, or as the system message."""
        phrase = self.phrases[index % len(self.phrases)]
        return Pushed(prefixed(phrase, prompt, channel, slot=self.slot, after=self.after), phrase)


@dataclass(frozen=True, slots=True)
class ShotGroup(PrefixGroup):
    """A prefix group whose phrases are contexts of answered prompts (many shots).

    `asked` are the prompts that are answered in it. Jobs know the phrases alone.
    """

    asked: frozenset[str] = frozenset()

    def answers(self, prompts: Iterable[Prompt]) -> int:
        """How many of some prompts its contexts answer."""
        return sum(prompt.text.strip() in self.asked for prompt in prompts)


def prefixed(
    phrase: str | None, prompt: Prompt, channel: Channel, *, slot: str = "", after: bool = False
) -> tuple[Message, ...]:
    """The chat of a prompt with a phrase in a channel; None: the bare prompt.

    In the user channel the phrase goes before the last user message, whatever was said before it, or around it
    where the phrase holds ``{prompt}``, or where `slot` and `after` say, as in `PrefixGroup`. In the system channel it
    goes before the prompt's own system message, where there is one. ``{payload.claim}`` in a phrase is what the prompt
    carries under that key.

    Raises:
        SpecError: the prompt carries no such key, or ``{prompt}`` stands in a system message.
    """
    if phrase is None:
        return prompt.messages
    turns = prompt.turns
    said = written(phrase, prompt)
    if channel == "user":
        if PROMPT in phrase:
            text = said
        elif slot and prompt.text.startswith(slot):
            text = f"{slot} {said}{prompt.text[len(slot) :]}"
        else:
            text = f"{prompt.text}\n{said}" if after else f"{said}\n\n{prompt.text}"
        return (*turns, Message("user", text))
    if PROMPT in phrase:
        raise SpecError(
            f"the phrase '{phrase}' holds {PROMPT}, which goes into the user message: set channel: "
            "{train: user, evaluate: user}"
        )
    if turns and turns[0].role == "system":
        said, turns = f"{said}\n\n{turns[0].content}", turns[1:]
    return (Message("system", said), *turns, Message("user", prompt.text))


def asked_again(
    identity: Mapping[str, Any], phrase: str | None, prompt: Prompt, channel: Channel
) -> tuple[Message, ...]:
    """The chat that a stored completion answers, from what its job has of the condition and the phrase that it had."""
    if (again := AGAIN.get(str(identity.get("kind")))) is not None:
        return again(identity, phrase, prompt, channel)
    group = identity.get("prefix") or identity  # a steering dose has the prefix beside it
    return prefixed(phrase, prompt, channel, slot=group.get("slot", ""), after=group.get("after", False))


def _empty_system(
    identity: Mapping[str, Any], phrase: str | None, prompt: Prompt, channel: Channel
) -> tuple[Message, ...]:
    del identity, phrase, channel  # it is the same chat whatever they are
    return (Message("system", ""), *prompt.messages)


Again = Callable[[Mapping[str, Any], str | None, Prompt, Channel], tuple[Message, ...]]
AGAIN: dict[str, Again] = {"empty_system": _empty_system}
"""The chat of kinds whose chat is more than a phrase beside the prompt, from what a stored job has of the condition."""


@cache
def prefix_groups() -> dict[str, PrefixGroup]:
    """The 24 published phrases in their six groups, by name, shortest first."""
    data = yaml.safe_load(asset("prefix_groups.yaml").read_text(encoding="utf-8"))
    return {name: PrefixGroup(name, tuple(phrases)) for name, phrases in data["groups"].items()}


def read_prefix(entry: Mapping[str, Any], where: str) -> list[Condition]:
    """Read ``{name: kind, phrases: [...]}``."""
    name, phrases = entry.get("name"), entry.get("phrases")
    if not isinstance(name, str) or not name:
        raise SpecError(f"{where}: a prefix group needs a name, e.g. {{name: kind, phrases: ['Be kind:']}}")
    return [PrefixGroup(name, check_phrases(phrases, f"{where} ({name})"))]


def check_phrases(phrases: object, where: str) -> tuple[str, ...]:
    """Return phrases as a tuple.

    Raises:
        SpecError: it is no list, it is empty, or a phrase is not text.
    """
    if not isinstance(phrases, list) or not phrases:
        raise SpecError(f"{where}: a prefix group needs a list of one phrase or more under 'phrases'")
    for phrase in phrases:
        if not isinstance(phrase, str) or not phrase.strip():
            raise SpecError(f"{where}: every phrase must be text that is not empty, but one is {phrase!r}")
    return tuple(phrases)
