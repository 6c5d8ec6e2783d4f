"""Reasoning and answers told apart by the marks that model families write."""

from __future__ import annotations

import pytest

from windowshift.backends.shared.reasoning import apart, closing_of, opening_of
from windowshift.backends.shared.refusal import unanswered
from windowshift.core.contract.generation import GenerateRequest, Message, Model, Sampling

HARMONY = "<|channel|>analysis<|message|>Users asks.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>"


@pytest.mark.parametrize(
    ("text", "opened", "reasoning", "answer"),
    [
        ("<think>\nHm.\n</think>\n\nYes.", None, "Hm.", "Yes."),
        ("Hm.\n</think>\n\nYes.", "<think>", "Hm.", "Yes."),
        ("<think>\nHm.\n</think>\n\nYes.", "<think>", "Hm.", "Yes."),  # a model that opens it again
        ("<think>\n\n</think>\n\nYes.", None, "", "Yes."),
        ("Hm, and no end", "<think>", "Hm, and no end", None),
        ("<think>Hm, and no end", None, "Hm, and no end", None),
        ("Hm.</think>", "<think>", "Hm.", ""),
        ("[THINK]Hm.[/THINK]Yes.", None, "Hm.", "Yes."),
        ("Yes.", None, None, "Yes."),
        ("", None, None, ""),
        ("The tag </think> closes it.", None, None, "The tag </think> closes it."),
        ("Write <think> first.", None, None, "Write <think> first."),
        (HARMONY.removesuffix("<|return|>"), None, "Users asks.", "Yes."),
        ("<|channel|>final<|message|>Yes.", None, None, "Yes."),
        ("<|channel|>analysis<|message|>Users asks", None, "Users asks", None),
        ("<|channel|>analysis<|message|>A.<|end|><|start|>assistant<|channel|>commentary<|message|>B.<|end|>"
         "<|start|>assistant<|channel|>final <|constrain|>json<|message|>{}", None, "A.\n\nB.", "{}"),
        ("<|channel|>", None, "", None),
    ],
)  # fmt: skip
def test_parts(text: str, opened: str | None, reasoning: str | None, answer: str | None) -> None:
    said = apart(text, opened)
    assert (said.reasoning, said.answer) == (reasoning, answer)
    assert answer is None or text[said.start :] == answer


def test_a_servers_text_whose_prompt_opened_the_tag() -> None:
    assert apart("Hm.\n</think>\n\nYes.", guess=True).reasoning == "Hm."
    assert apart("Write <think> and </think>.", guess=True).reasoning is None


def test_prompts_that_leave_a_tag_open() -> None:
    assert opening_of("<|im_start|>assistant\n<think>\n") == "<think>"
    assert closing_of("<think>") == "</think>"
    assert opening_of("<|im_start|>assistant\n<think>\n\n</think>\n\n") is None
    assert opening_of("<|im_start|>assistant\n") is None


def test_an_unanswered_completion_says_why() -> None:
    request = GenerateRequest("k", (Message("user", "hi"),), Model("m"), Sampling(max_tokens=64), 1)
    spent = unanswered(request, "Hm", 64, cut=True, prompt_tokens=5)
    assert spent.unanswered
    assert (spent.finish, spent.text, spent.tokens, spent.reasoning_tokens) == ("failed", "", 0, 64)
    assert spent.error == "the model spent its 64 tokens on reasoning before it answered: raise max_tokens"
    assert "without an answer" in str(unanswered(request, "Hm", 12, cut=False).error)
