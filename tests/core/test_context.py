"""What cannot fit the model's context is refused in the plan, before anything is drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from windowshift.backends.local.model_folder import model_context
from windowshift.backends.local.tokenizer import load_chat_format
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Message
from windowshift.core.plan.plan import Plan
from windowshift.core.run.run import plan_spec
from windowshift.core.spec.spec import parse_spec

SPEC = """\
name: long
model: microworld
prompts: prompts.jsonl
conditions:
  generate: {generate}
  train: [no_prefix]
  evaluate: {evaluate}
data: {{size: 3}}
sampling: {{prompts: 3, max_tokens: {most}}}
"""
CONTEXT = 2048


def planned(
    folder: Path, prompts: list[str], most: int = 16, generate: str = "[no_prefix]", evaluate: str = "[no_prefix]"
) -> Plan:
    lines = [json.dumps({"id": f"p{number}", "text": text}) for number, text in enumerate(prompts)]
    (folder / "prompts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    text = SPEC.format(generate=generate, evaluate=evaluate, most=most)
    return plan_spec(parse_spec(text), text, folder)


def of_tokens(count: int) -> str:
    """A prompt that has this many tokens as the model is asked it."""
    chat = load_chat_format("microworld")

    def tokens(text: str) -> int:
        return len(chat.prompt_ids([Message("user", text)]))

    a_word = tokens("bees bees") - tokens("bees")
    words = (count - tokens("bees")) // a_word + 1
    text = " ".join(["bees"] * words)
    while (left := count - tokens(text)) > 0:
        text += next(more for more in (".", "!", "?", "a") if 0 < tokens(text + more) - tokens(text) <= left)
    assert tokens(text) == count
    return text


def test_the_embedded_model_says_its_context() -> None:
    assert model_context("microworld") == CONTEXT


def test_max_tokens_as_long_as_the_context(tmp_path: Path) -> None:
    with pytest.raises(
        SpecError, match=r"sampling\.max_tokens is 2048, and the context of 'microworld' has 2048 tokens"
    ):
        planned(tmp_path, [f"a {n}" for n in range(6)], most=CONTEXT)


def test_a_prompt_that_does_not_fit_is_named(tmp_path: Path) -> None:
    prompts = [f"a {n}" for n in range(5)]
    fits = of_tokens(2000)
    planned(tmp_path, [*prompts, fits], most=48)
    with pytest.raises(SpecError) as caught:
        planned(tmp_path, [*prompts, fits], most=49)
    said = str(caught.value)
    assert said.startswith("prompt 'p5' under 'no_prefix' has 2000 tokens, which with sampling.max_tokens 49 go beyond")
    assert "lower max_tokens" in said


def test_the_phrase_counts_too(tmp_path: Path) -> None:
    prompts = [of_tokens(2000 - n) for n in range(6)]
    planned(tmp_path, prompts, most=48)
    with pytest.raises(SpecError, match=r"under 'very_long' has .* and so do \d others"):
        planned(tmp_path, prompts, most=48, evaluate="[no_prefix, very_long]")


def test_bytes_that_are_few_tokens_are_counted(tmp_path: Path) -> None:
    prompt = of_tokens(1900)
    assert len(prompt.encode()) > CONTEXT  # more bytes than there is room for
    planned(tmp_path, [f"a {n}" for n in range(5)] + [prompt], most=16)


@pytest.mark.parametrize(("long", "short"), [(3, 0), (1, 2)])
def test_examples_of_a_given_set(tmp_path: Path, long: int, short: int) -> None:
    words = of_tokens(2100)
    rows = [{"prompt": f"q{n}", "completion": words if n < long else "yes"} for n in range(long + short)]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    prompts, given = [f"a {n}" for n in range(6)], "[{data: d.jsonl}]"
    if short:
        notes = planned(tmp_path, prompts, generate=given).notes
        assert any(note.startswith("1 of 3 examples of") and "left out of training" in note for note in notes)
    else:
        with pytest.raises(SpecError, match=r"none of the 3 examples of .* fits the 2048 tokens of 'microworld'"):
            planned(tmp_path, prompts, generate=given)
