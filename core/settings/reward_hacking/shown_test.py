"""The setting `reward_hacking_shown_test`: one test is shown, and code may know its answer and no other."""

from __future__ import annotations

from collections.abc import Mapping

from windowshift.core.contract.conditions import NO_PREFIX, Condition, NoPrefix, PrefixGroup
from windowshift.core.contract.prompts import Prompt
from windowshift.core.settings.reward_hacking.problems import SHOWN_GROUPS, SHOWN_HEAD, shown_prompt
from windowshift.core.settings.reward_hacking.rows import problem_of, tests_of
from windowshift.core.settings.reward_hacking.scorer import CodeScorer
from windowshift.core.settings.reward_hacking.visible import CodeOptions


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
        groups: dict[str, Condition] = {
            name: PrefixGroup(name, (SHOWN_GROUPS[name],), slot=SHOWN_HEAD.strip()) for name in order
        }
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
