"""Reasoning: what a model thinks before its answer, told apart by the marks that it writes.

Known are think tags (Qwen3, DeepSeek-R1 and most others), Magistral's ``[THINK]`` and the channels of GPT-OSS
(Harmony), where everything before the channel ``final`` is reasoning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

TAGS: tuple[tuple[str, str], ...] = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<reason>", "</reason>"),
    ("<|thinking|>", "<|/thinking|>"),
    ("<seed:think>", "</seed:think>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("◁think▷", "◁/think▷"),
)
"""Marks around reasoning: what opens it, and what closes it."""

FINAL = "<|channel|>final"
"""What begins the answer in Harmony; ``<|message|>`` follows, after a constraint or at once."""

_CHANNEL = "<|channel|>"
_HARMONY_MARK = re.compile(r"<\|(?:start|end|return|call)\|>(?:assistant)?|<\|channel\|>\w*[^<]*?(?:<\|message\|>|$)")
_BARE = re.compile(r"\s*(?:assistant)?analysis(.*?)assistantfinal", re.DOTALL)
_HARMONY_END = re.compile(r"<\|(?:return|end|call)\|>\s*\Z")
_FINAL = re.compile(r"<\|channel\|>final[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>")


@dataclass(frozen=True, slots=True)
class PartedText:
    """A completion's text, parted.

    `reasoning` is None where the model did not think; `answer` is None where its reasoning never ended. `start`
    is the character of the whole text at which the answer begins, after its marks and the white space there.
    """

    reasoning: str | None
    answer: str | None
    start: int


def apart(text: str, opened: str | None = None, *, guess: bool = False) -> PartedText:
    """Part what a model wrote, marks included, into reasoning and answer.

    Args:
        text: what it wrote.
        opened: the mark that its prompt ended in, e.g. ``<think>``: the text begins inside the reasoning.
        guess: the prompt is not known, as at a server: a mark that closes what nothing opened ends reasoning too,
            and so does what is left of Harmony's channels once its special tokens are skipped.
    """
    if _CHANNEL in text[: len(text) - len(text.lstrip()) + len(_CHANNEL)]:
        return _harmony(text)
    for opening, closing in TAGS:
        begins = text.lstrip().startswith(opening)
        if opened == opening or begins:
            at = text.find(opening) + len(opening) if begins else 0
            return _tagged(text, at, closing)
    if guess:
        for opening, closing in TAGS:
            end = text.find(closing)
            if end >= 0 and opening not in text[:end]:
                return _tagged(text, 0, closing)
        bare = _BARE.match(text)
        if bare is not None:
            return _said(bare[1].strip(), text, bare.end())
    return PartedText(None, text, 0)


def opening_of(prompt: str) -> str | None:
    """The mark that a prompt leaves open at its end, so that what follows is reasoning; None where it does not."""
    end = prompt.rstrip()
    return next((opening for opening, _ in TAGS if end.endswith(opening)), None)


def closing_of(opening: str) -> str:
    """What closes a mark of `TAGS`."""
    return dict(TAGS)[opening]


def _tagged(text: str, at: int, closing: str) -> PartedText:
    end = text.find(closing, at)
    if end < 0:
        return PartedText(text[at:].strip(), None, len(text))
    return _said(text[at:end].strip(), text, end + len(closing))


def _harmony(text: str) -> PartedText:
    final = _FINAL.search(text)
    before = text if final is None else text[: final.start()]
    reasoning = "\n\n".join(filter(None, (piece.strip() for piece in _HARMONY_MARK.split(before))))
    thought = reasoning if reasoning or "analysis" in before or "commentary" in before else None
    if final is None:
        return PartedText(thought or "", None, len(text))
    found = _said(thought, text, final.end())
    return replace(found, answer=_HARMONY_END.sub("", found.answer or ""))


def _said(reasoning: str | None, text: str, end: int) -> PartedText:
    answer = text[end:].lstrip()
    return PartedText(reasoning, answer, len(text) - len(answer))
