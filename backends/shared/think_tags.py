"""Reasoning that a server leaves in the text of an answer, told from the answer."""

from __future__ import annotations

import re
from dataclasses import dataclass

# As open-weight models write them: Qwen, DeepSeek and most others; some fine-tunes; Magistral; Seed.
_MARKS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<reason>", "</reason>"),
    ("<|thinking|>", "<|/thinking|>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
)
# GPT-OSS: channels, with their special tokens or with what is left once those are skipped.
_HARMONY = re.compile(
    r"<\|channel\|>\s*(\w+).*?<\|message\|>(.*?)(?=<\|(?:end|return|call|start|channel)\|>|\Z)", re.DOTALL
)
_HARMONY_BARE = re.compile(r"\A\s*(?:assistant)?analysis(.*?)(?:assistantfinal(.*))?\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Thought:
    """A text apart: what was thought (None: nothing was), and the answer (None: it was never begun)."""

    reasoning: str | None
    answer: str | None


def apart(text: str) -> Thought:
    """Tell reasoning from the answer.

    What follows the closing mark is the answer; where the opening mark stood in the prompt, everything before the
    closing one was thought. A text that opens a mark and never closes it has no answer. A mark that stands in the
    middle of an answer, as where somebody writes about them, is a part of the answer.
    """
    begun = text.lstrip()
    for opening, closing in _MARKS:
        opened = begun.startswith(opening)
        before, closed, after = text.partition(closing)
        if opened and not closed:
            return Thought(begun.removeprefix(opening).strip(), None)
        if closed and (opened or opening not in before):
            return Thought(before.strip().removeprefix(opening).strip(), after.lstrip())
    if begun.startswith("<|channel|>"):
        parts = _HARMONY.findall(text)
        thought = "\n".join(content.strip() for name, content in parts if name != "final")
        finals = [content for name, content in parts if name == "final"]
        return Thought(thought, "".join(finals) if finals else None)
    bare = _HARMONY_BARE.match(text)
    if bare is not None and bare[2] is not None:
        return Thought(bare[1].strip(), bare[2])
    return Thought(None, text)
