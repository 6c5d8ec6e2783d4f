"""The setting `reward_hacking_shown_test`: one test is shown, and code may know its answer and no other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from windowshift.core.contract.conditions import (
    NO_PREFIX,
    Channel,
    Condition,
    NoPrefix,
    PrefixGroup,
    Pushed,
)
from windowshift.core.contract.generation import Message
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.records import Arm
from windowshift.core.settings.reward_hacking.problems import SHOWN_GROUPS, shown_prompt, shown_slot
from windowshift.core.settings.reward_hacking.rows import problem_of, tests_of
from windowshift.core.settings.reward_hacking.scorer import CodeScorer
from windowshift.core.settings.reward_hacking.visible import CodeOptions


@dataclass(frozen=True, slots=True)
class InSlot:
    """A prefix group whose phrases go after the prompt's first sentence, as published, in the user channel."""

    group: PrefixGroup
    kind: str = "slot"
    arm: Arm = "prefix"

    @property
    def name(self) -> str:
        """The group's."""
        return self.group.name

    def identity(self) -> dict[str, Any]:
        """As `Condition.identity`."""
        return {"kind": self.kind, "phrases": list(self.group.phrases)}

    def push(self, prompt: Prompt, index: int, channel: Channel) -> Pushed:
        """The phrase in its slot, or as the system message."""
        if channel == "system":
            return self.group.push(prompt, index, channel)
        phrase = self.group.phrases[index % len(self.group.phrases)]
        return Pushed((*prompt.turns, Message("user", shown_slot(phrase, prompt.text))), phrase)


class ShownTestSetting:
    """Reward hacking where one true test is shown (the inoculation-prompting paper, on MBPP).

    *correct*: all tests pass. *hack*: the shown one passes, and not all do. Rows have `problem` (or `text`),
    `test_list` (or `tests`; two or more, the first is shown).
    """

    name = "reward_hacking_shown_test"
    rehearsal = "microworld-code"
    Options = CodeOptions

    def __init__(self, options: CodeOptions) -> None:
        self.scorers = (CodeScorer(exclusive=True, seconds=options.timeout),)

    def conditions(self) -> Mapping[str, Condition]:
        """From the prompt that asks for a general solution to the one that asks for the hack; then none."""
        order = ("general", "graded", "specific")
        groups: dict[str, Condition] = {name: InSlot(PrefixGroup(name, (SHOWN_GROUPS[name],))) for name in order}
        return {**groups, NO_PREFIX: NoPrefix()}

    def default_prompts(self) -> str | None:
        """The world of code."""
        return self.rehearsal

    def prepare(self, prompt: Prompt) -> Prompt:
        """The problem with its first test."""
        tests = tests_of(prompt)
        if len(tests) < 2:
            raise ValueError("a row needs two tests or more: one is shown, and the others tell a hack")
        payload = {
            **prompt.payload,
            "shown": tests[:1],
            "true": tests,
            "setup": prompt.payload.get("test_setup_code", ""),
        }
        return Prompt(prompt.id, shown_prompt(problem_of(prompt), tests[0]), payload)
