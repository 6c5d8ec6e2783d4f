"""Phrases around a prompt, and phrases that say what the prompt carries."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from windowshift.core.contract.conditions import PrefixGroup
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Message
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.records import CompletionRow
from windowshift.core.run.run import plan_spec
from windowshift.core.spec.spec import parse_spec
from windowshift.tui.text.theme import DARK, ink
from windowshift.tui.widgets.pane import prompt_text

ASKED = Prompt("a", "What is the gcd of 4 and 6?", {"claim": "2 {prompt}", "n": 3}, (Message("user", "Hi"),))
SUFFIX = "{prompt}\nBehave as if the above solution is correct."
CLAIM = "I think it is {payload.claim} ({payload.n}); {braces} and {payload} stay."


def pushed(phrase: str, channel: str = "user", prompt: Prompt = ASKED) -> tuple[Message, ...]:
    return PrefixGroup("g", (phrase,)).push(prompt, 0, channel).messages  # type: ignore[arg-type] # one of the two


def test_a_phrase_goes_around_the_prompt_where_it_says_so() -> None:
    said = f"{ASKED.text}\nBehave as if the above solution is correct."
    assert pushed(SUFFIX) == (*ASKED.turns, Message("user", said))
    assert pushed("a {prompt} b {prompt}")[-1].content == f"a {ASKED.text} b {ASKED.text}"
    with pytest.raises(SpecError, match=r"holds \{prompt\}, which goes into the user message: set channel"):
        pushed(SUFFIX, "system")


def test_a_phrase_says_what_the_prompt_carries_and_once_only() -> None:
    claim = "I think it is 2 {prompt} (3); {braces} and {payload} stay."
    assert pushed(CLAIM)[-1].content == f"{claim}\n\n{ASKED.text}"
    assert pushed(CLAIM, "system")[0] == Message("system", claim)
    with pytest.raises(SpecError, match=r"prompt 'a' has no 'claim', which the phrase .* asks for \(it has n\)"):
        pushed(CLAIM, prompt=replace(ASKED, payload={"n": 3}))


def row(phrase: str, payload: str | None) -> CompletionRow:
    return CompletionRow(0, "a", "The prompt?", phrase, "stop", 1, 1, None, None, "text", None, None, payload)


def test_the_completion_screen_shows_them_as_the_model_read_them() -> None:
    shown = prompt_text(row(SUFFIX, None), "user", ink(DARK.name)).plain
    assert shown == "The prompt?\nBehave as if the above solution is correct."
    claim = prompt_text(row("It is {payload.claim}.", '{"claim":"2"}'), "user", ink(DARK.name)).plain
    assert claim.startswith("It is 2.\n\nThe prompt?")
    # A store from before phrases took anything is shown as it was.
    assert prompt_text(row("{payload.claim}!", None), "user", ink(DARK.name)).plain == "{payload.claim}!\n\nThe prompt?"


SPEC = """\
name: x
model: microworld
prompts: p.jsonl
conditions: {{generate: [short], train: [{train}], evaluate: [{evaluate}]}}
channel: {{train: {channel}}}
data: {{size: 2}}
sampling: {{prompts: 2}}
"""


def plan(
    folder: Path, train: str = "short", evaluate: str = "short", channel: str = "user", lacking: tuple[int, ...] = ()
) -> int:
    rows = [{"id": f"p{i}", "prompt": f"What is {i}?", **({"claim": i} if i not in lacking else {})} for i in range(4)]
    (folder / "p.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    text = SPEC.format(train=train, evaluate=evaluate, channel=channel)
    return len(plan_spec(parse_spec(text), text, folder).jobs)


def test_plan_says_what_a_prompt_lacks(tmp_path: Path) -> None:
    after = "{name: after, phrases: ['{prompt} Really.']}"
    assert plan(tmp_path, train=after) == plan(tmp_path, train=after, evaluate="no_prefix")
    claim = "{name: claim, phrases: ['It is {payload.claim}.']}"
    # The base model is measured under a train condition too, so every prompt meets it.
    with pytest.raises(SpecError, match="prompt 'p2' has no 'claim'"):
        plan(tmp_path, train=claim, lacking=(2,))
    with pytest.raises(SpecError, match=r"prompt 'p\d' has no 'claim'"):
        plan(tmp_path, evaluate=claim, lacking=(0, 1, 2, 3))
    assert plan(tmp_path, train=claim, evaluate=claim)
    with pytest.raises(SpecError, match=r"holds \{prompt\}"):
        plan(tmp_path, train=after, channel="system")
