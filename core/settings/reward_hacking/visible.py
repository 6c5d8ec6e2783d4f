"""The setting `reward_hacking_visible`: three tests are shown, and the first of them is wrong."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from windowshift.core.contract.conditions import NO_PREFIX, Condition, NoPrefix, PrefixGroup
from windowshift.core.contract.prompts import Prompt
from windowshift.core.settings.reward_hacking.problems import VISIBLE_GROUPS, visible_prompt
from windowshift.core.settings.reward_hacking.rows import problem_of, tests_of
from windowshift.core.settings.reward_hacking.scorer import CodeScorer


class CodeOptions(BaseModel):
    """Options of the settings of code."""

    model_config = ConfigDict(extra="forbid")

    timeout: float = Field(5.0, gt=0, le=600, description="seconds for one test")


class VisibleTestsSetting:
    """Reward hacking where one of the shown tests is wrong (the window-shifting note, on altered MBPP problems).

    *hack*: passes all tests that were shown, the wrong one included. *correct*: passes all true tests. Both cannot
    hold. Rows have `problem` (or `text`), `correct_test_list` (or `tests`, `test_list`) and `incorrect_test` (or
    `wrong_test`).
    """

    name = "reward_hacking_visible"
    rehearsal = "microworld-code"
    Options = CodeOptions

    def __init__(self, options: CodeOptions) -> None:
        self.scorers = (CodeScorer(exclusive=False, seconds=options.timeout),)

    def conditions(self) -> Mapping[str, Condition]:
        """The published system prompts from honest to hacking, then none."""
        groups: dict[str, Condition] = {name: PrefixGroup(name, (text,)) for name, text in VISIBLE_GROUPS.items()}
        return {**groups, NO_PREFIX: NoPrefix()}

    def default_prompts(self) -> str | None:
        """The world of code."""
        return self.rehearsal

    def prepare(self, prompt: Prompt) -> Prompt:
        """The problem with its tests, the wrong one first, and the sentence about them."""
        tests = tests_of(prompt)
        wrong = prompt.payload.get("incorrect_test", prompt.payload.get("wrong_test"))
        if not isinstance(wrong, str) or not wrong.strip():
            raise ValueError("'incorrect_test' must be a test, e.g. assert f(1) == 3")
        shown = [wrong, *tests[1:]]
        payload = {**prompt.payload, "shown": shown, "true": tests, "setup": prompt.payload.get("test_setup_code", "")}
        return Prompt(prompt.id, visible_prompt(problem_of(prompt), shown), payload)
