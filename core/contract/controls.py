"""Controls of conditionalization: contexts made of a condition's own phrases that lack what it says.

A train condition changes two things at once: what the text asks for, and that there is a text at all, which is then
gone at evaluation. The controls keep the second and change the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from windowshift.core.contract.conditions import Channel, PrefixGroup, Pushed
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Message
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.records import Arm

TextControl = Literal[
    "irrelevant", "rephrased", "negated", "keyword", "other_trait", "empty_system", "delimiters", "neutral"
]
TEXT_CONTROLS: tuple[TextControl, ...] = get_args(TextControl)
STANDARD: tuple[TextControl, ...] = ("irrelevant", "delimiters", "negated", "keyword")
"""What ``control: all`` stands for, and what the microscope asks for: none needs more than the condition itself."""
WITHOUT_MEANING: tuple[TextControl, ...] = ("irrelevant", "delimiters", "neutral", "empty_system")
"""Controls that say nothing of the trait: what they do is done by any context."""
MOST_USES = 2
"""How many examples of D a rephrasing is used for at most."""


@dataclass(frozen=True, slots=True)
class ControlGroup(PrefixGroup):
    """A prefix group that is a control of another condition.

    `of` is the name of that condition and `control` what was kept of it. `distances` has, for rephrasings, how far
    each phrase is from the nearest original, from 0 (the same words) to 1 (none in common). Jobs know the phrases
    alone, so that a control shares its results with an equal group that was written by hand.
    """

    control: TextControl = "irrelevant"
    of: str = ""
    distances: tuple[float, ...] = ()

    def push(self, prompt: Prompt, index: int, channel: Channel) -> Pushed:
        """As `PrefixGroup.push`; where the phrase is empty, the delimiter alone."""
        phrase = self.phrases[index % len(self.phrases)]
        if phrase or channel == "user":
            return PrefixGroup.push(self, prompt, index, channel)
        return Pushed(_with_empty_system(self.name, prompt), phrase)


@dataclass(frozen=True, slots=True)
class EmptySystem:
    """An empty system message, whatever the channel."""

    name: str
    of: str = ""
    control: TextControl = "empty_system"
    kind: str = "empty_system"
    arm: Arm = "prefix"

    def identity(self) -> dict[str, Any]:
        """As `Condition.identity`: nothing but the kind."""
        return {"kind": self.kind}

    def push(self, prompt: Prompt, index: int, channel: Channel) -> Pushed:  # noqa: ARG002 - the protocol's
        """The prompt behind a system message without text."""
        return Pushed(_with_empty_system(self.name, prompt), "")


def _with_empty_system(name: str, prompt: Prompt) -> tuple[Message, ...]:
    if prompt.turns and prompt.turns[0].role == "system":
        raise SpecError(
            f"'{name}' is an empty system message, but prompt '{prompt.id}' has a system message of its own: use "
            "another control"
        )
    return (Message("system", ""), *prompt.messages)


def enough_rephrasings(group: ControlGroup, examples: int) -> None:
    """Refuse fewer rephrasings than D needs.

    Raises:
        SpecError: one would be used more than twice.
    """
    if group.control == "rephrased" and examples > MOST_USES * len(group.phrases):
        raise SpecError(
            f"conditions.train: '{group.name}' has {len(group.phrases)} rephrasings for {examples} examples; each is "
            f"used at most {MOST_USES} times, so it needs {-(-examples // MOST_USES)}"
        )
